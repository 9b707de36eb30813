//! Whether a node joins the cluster of its database, and by which address others reach it.

use std::net::{IpAddr, SocketAddr};

use super::error::ConfigError;
use super::node_tls::NodeTls;
use super::read::{Reader, invalid};
use crate::cluster::ClusterOptions;

const ADDRESS: &str = "NODE_ADDR";
const ADVERTISE: &str = "NODE_ADVERTISE";

/// Reads how the node takes part in a cluster; `None` when it stays alone.
pub(super) fn cluster(
    read: &mut Reader<'_>,
    protection: &NodeTls,
    is_shared: bool,
) -> Result<Option<ClusterOptions>, ConfigError> {
    let show = |address: &Option<SocketAddr>| address.map_or_else(String::new, |address| address.to_string());
    let listen = read.value(ADDRESS, None, |text| text.parse().ok().map(Some), show)?;
    let advertise = advertise(read)?;
    let Some(listen) = listen else { return alone(advertise.as_deref()) };
    check(listen, advertise.as_deref(), protection, is_shared)?;
    let NodeTls { files: tls, plaintext_allowed } = protection.clone();
    Ok(Some(ClusterOptions { listen, advertise, tls, plaintext_allowed }))
}

fn alone(advertise: Option<&str>) -> Result<Option<ClusterOptions>, ConfigError> {
    match advertise {
        None => Ok(None),
        Some(advertise) => Err(ConfigError::Contradiction {
            problem: format!("{ADVERTISE} is {advertise:?} and {ADDRESS} is not set"),
            remedy: "set NODE_ADDR to where this node listens for others, or remove NODE_ADVERTISE",
        }),
    }
}

fn advertise(read: &mut Reader<'_>) -> Result<Option<String>, ConfigError> {
    let text = read.text(ADVERTISE).map(str::trim).filter(|text| !text.is_empty());
    match text {
        Some(text) if !is_reachable(text) => Err(invalid(ADVERTISE, text)),
        text => Ok(text.map(str::to_owned)),
    }
}

/// Tells whether a text is a host and a port that somebody else can connect to. Whether the host exists is not asked:
/// names of containers come and go.
fn is_reachable(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0 && !address.ip().is_unspecified();
    }
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_a_name =
        |host: &str| !host.is_empty() && host.chars().all(is_of_a_name) && host.parse::<IpAddr>().is_err();
    text.rsplit_once(':')
        .is_some_and(|(host, port)| is_a_name(host) && port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn check(
    listen: SocketAddr,
    advertise: Option<&str>,
    protection: &NodeTls,
    is_shared: bool,
) -> Result<(), ConfigError> {
    let refuse = |problem: &str, remedy| {
        let problem = format!("{ADDRESS} is \"{listen}\" and {problem}");
        Err(ConfigError::Contradiction { problem, remedy })
    };
    if !is_shared {
        return refuse(
            "one process at a time opens the store",
            "nodes share a PostgreSQL database: set DATABASE_URL=postgres://..., or remove NODE_ADDR",
        );
    }
    if listen.ip().is_unspecified() && advertise.is_none() {
        return refuse(
            "NODE_ADVERTISE is not set, so other nodes would not know where to connect",
            "set NODE_ADVERTISE to the host and port by which they reach this node",
        );
    }
    let is_protected = protection.files.is_some() || protection.plaintext_allowed;
    if !is_protected && !listen.ip().is_loopback() {
        return refuse(
            "nothing protects the traffic beyond this machine",
            "set NODE_TLS_CERT, NODE_TLS_KEY and NODE_TLS_CA, or NODE_PLAINTEXT_ALLOWED=true where the network encrypts",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const POSTGRES: (&str, &str) = ("DATABASE_URL", "postgres://bank@db/bank");
    const ALLOWED: (&str, &str) = ("NODE_PLAINTEXT_ALLOWED", "true");

    fn read(pairs: &[(&str, &str)]) -> Result<Option<ClusterOptions>, String> {
        Config::from_pairs(pairs).map(|config| config.cluster).map_err(|error| error.to_string())
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        read(pairs).expect_err("is refused")
    }

    #[test]
    fn a_node_joins_when_it_has_an_address_and_not_otherwise() {
        assert_eq!(read(&[POSTGRES]), Ok(None));
        let options = ClusterOptions::new(([127, 0, 0, 1], 7_000).into());
        assert_eq!(read(&[POSTGRES, (ADDRESS, "127.0.0.1:7000")]), Ok(Some(options)));
    }

    #[test]
    fn every_part_reaches_the_node() {
        let options = read(&[
            POSTGRES,
            (ADDRESS, "[::]:7000"),
            (ADVERTISE, "bank-0.bank:7000"),
            ("NODE_TLS_CERT", "a.pem"),
            ("NODE_TLS_KEY", "b.pem"),
            ("NODE_TLS_CA", "c.pem"),
        ]);
        let options = options.expect("is valid").expect("joins");
        assert_eq!(options.listen, SocketAddr::from(([0_u16; 8], 7_000)));
        assert_eq!(options.advertise.as_deref(), Some("bank-0.bank:7000"));
        assert!(options.tls.is_some_and(|files| files.key.ends_with("b.pem")) && !options.plaintext_allowed);
        let plain = read(&[POSTGRES, (ADDRESS, "10.0.0.7:7000"), ALLOWED]).expect("is valid");
        assert!(plain.expect("joins").plaintext_allowed);
    }

    #[test]
    fn what_is_no_address_is_named_with_what_is_allowed() {
        for address in ["bank", "bank:7000", "127.0.0.1", "127.0.0.1:70000"] {
            let text = refusal(&[POSTGRES, (ADDRESS, address)]);
            assert!(
                text.starts_with("NODE_ADDR is \"") && text.contains("allowed is address:port"),
                "{text}"
            );
        }
        let bad = ["bank", "bank:", ":7000", "bank:0", "0.0.0.0:7000", "[::]:7000", "::1:7000", "http://a:7"];
        for host in bad {
            let text = refusal(&[POSTGRES, (ADDRESS, "127.0.0.1:7000"), (ADVERTISE, host)]);
            assert!(text.starts_with("NODE_ADVERTISE is \""), "{host}: {text}");
        }
        for host in ["bank-0:7000", "10.0.0.7:7000", "[fd00::7]:7000", "bank.svc.cluster.local:7000"] {
            let options = read(&[POSTGRES, (ADDRESS, "127.0.0.1:7000"), (ADVERTISE, host)]);
            assert!(options.is_ok(), "{host}: {options:?}");
        }
    }

    #[test]
    fn a_wildcard_tells_nobody_where_to_connect() {
        let text = refusal(&[POSTGRES, (ADDRESS, "0.0.0.0:7000"), ALLOWED]);
        assert!(
            text.contains("NODE_ADVERTISE is not set") && text.contains("set NODE_ADVERTISE to"),
            "{text}"
        );
        let text = refusal(&[POSTGRES, (ADVERTISE, "bank:7000")]);
        assert!(text.contains("NODE_ADDR is not set"), "{text}");
    }

    #[test]
    fn a_store_that_cannot_be_shared_makes_no_cluster() {
        for store in ["inmemory", "sqlite"] {
            let text = refusal(&[("EVENT_STORE_TYPE", store), (ADDRESS, "127.0.0.1:7000")]);
            assert!(
                text.contains("one process at a time") && text.contains("DATABASE_URL=postgres"),
                "{text}"
            );
        }
    }

    #[test]
    fn plain_text_does_not_leave_the_machine_unasked() {
        let text = refusal(&[POSTGRES, (ADDRESS, "10.0.0.7:7000")]);
        assert!(text.contains("nothing protects") && text.contains("NODE_PLAINTEXT_ALLOWED"), "{text}");
    }
}
