//! Runs every example, since an example that fails its own assertions teaches the wrong thing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Finds an example beside this test; `cargo test` builds examples before it runs tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test lies in <profile>/deps");
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built; run `cargo test` without naming a target, or `cargo build --examples` first",
        path.display()
    );
    path
}

fn succeeds(name: &str) {
    let output = Command::new(example(name)).output().expect("the example starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed with {}: {errors}", output.status);
}

macro_rules! runs {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            succeeds(stringify!($name));
        })*

        /// The examples that have a test, the interactive one among them.
        const TESTED: &[&str] = &[$(stringify!($name)),*, "with_axum"];
    };
}

runs!(quickstart, idempotency, time_travel, load_many, save_events, custom_store);

#[test]
fn every_example_has_a_test() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in folder.read_dir().expect("there are examples") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(path.is_dir() || TESTED.contains(&&*name), "{name} has no test here");
    }
}

/// A process that is ended with the test, however the test ends.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It has ended already when all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn with_axum_serves_until_it_is_told_to_stop() {
    let mut command = Command::new(example("with_axum"));
    let mut server =
        Ends(command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("the example starts"));
    let mut output = BufReader::new(server.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it says where it listens");
    let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();

    assert!(post(&address, "/accounts/ada/deposit/30").ends_with("\r\n\r\n30\n"));
    assert!(post(&address, "/accounts/ada/deposit/12").ends_with("\r\n\r\n42\n"));
    let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", server.0.id())]).status();
    assert!(told.expect("a shell").success());

    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("it ends its output");
    assert_eq!(rest, "stopped\n");
    assert!(server.0.wait().expect("it ends").success());
}

fn post(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "POST {path} HTTP/1.1\r\nHost: bank\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
