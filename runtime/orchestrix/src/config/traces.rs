//! Where traces go: `TRACING_ENABLED` with the address of a collector, under its own name or under an old one.

use super::error::ConfigError;
use super::read::{Reader, invalid};

const ENABLED: &str = "TRACING_ENABLED";
const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const JAEGER: &str = "JAEGER_ENDPOINT";

/// Where the OTLP specification has a collector listen for HTTP, and for gRPC.
const HTTP_PORT: u16 = 4_318;
const GRPC_PORT: u16 = 4_317;

/// Reads where traces go, the whole address; `None` when nobody asked for traces. What a person should know is added to
/// the warnings.
pub(super) fn traces(
    read: &mut Reader<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let otlp = read.text(OTLP);
    let jaeger = read.text(JAEGER);
    if !read.flag(ENABLED, false)? {
        // An address alone asks for nothing.
        return Ok(None);
    }
    if cfg!(not(feature = "otlp")) {
        return Err(ConfigError::NotInThisRelease {
            name: ENABLED,
            value: "true".to_owned(),
            remedy: "build it with the feature `otlp`, or set it to false; LOG_FORMAT=json writes the same fields to the log",
        });
    }
    let collector = match (otlp, jaeger) {
        (Some(text), _) => Collector::parse(text).ok_or_else(|| invalid(OTLP, text))?,
        (None, Some(text)) => {
            let host = jaeger_host(text).ok_or_else(|| invalid(JAEGER, text))?;
            let collector = Collector::at(host);
            warnings.push(format!(
                "{JAEGER} is an old name: traces go to {} by OTLP; set {OTLP}=http://{host}:{HTTP_PORT} instead",
                collector.address
            ));
            collector
        }
        (None, None) => Collector::at("localhost"),
    };
    if collector.port == Some(GRPC_PORT) {
        warnings.push(format!(
            "{OTLP} names port {GRPC_PORT}, where collectors expect gRPC; traces are sent over HTTP, for which they listen \
             on {HTTP_PORT}"
        ));
    }
    Ok(Some(collector.address))
}

/// Where a collector takes traces.
struct Collector {
    address: String,
    port: Option<u16>,
}

impl Collector {
    fn at(host: &str) -> Self {
        Self { address: format!("http://{host}:{HTTP_PORT}/v1/traces"), port: Some(HTTP_PORT) }
    }

    /// Reads `http://host:port`, as the variable is specified: the path of traces is added to it.
    fn parse(text: &str) -> Option<Self> {
        let (authority, path) = split(text.strip_prefix("http://")?);
        let (_, port) = host_and_port(authority)?;
        let path = path.trim_end_matches('/').trim_end_matches("/v1/traces");
        Some(Self { address: format!("http://{authority}{path}/v1/traces"), port })
    }
}

/// Returns the host of an address of Jaeger: of its collector, `http://host:14268/api/traces`, or of its agent,
/// `host:6831`.
fn jaeger_host(text: &str) -> Option<&str> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    host_and_port(split(rest).0).map(|(host, _)| host)
}

fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end_of_host = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[end_of_host..].rfind(':') {
        Some(place) => {
            let (host, port) = authority.split_at(end_of_host + place);
            (host, Some(port[1..].parse().ok().filter(|port| *port > 0)?))
        }
        None => (authority, None),
    };
    let plain = |char: char| char.is_ascii_alphanumeric() || "-._[]:".contains(char);
    (!host.is_empty() && host.chars().all(plain)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, super::ConfigError> {
        Config::from_pairs(pairs)
    }

    #[test]
    fn an_address_alone_asks_for_nothing() {
        let config = read(&[("JAEGER_ENDPOINT", "http://localhost:6831"), ("TRACING_ENABLED", "false")]);
        let config = config.expect("valid");
        assert!(config.traces.is_none() && config.warnings().is_empty());
    }

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn a_build_that_cannot_export_says_what_to_do() {
        let error = read(&[("TRACING_ENABLED", "true")]).expect_err("is refused").to_string();
        assert!(error.starts_with("TRACING_ENABLED") && error.contains("the feature `otlp`"), "{error}");
    }

    #[cfg(feature = "otlp")]
    fn to(name: &str, value: &str) -> (Option<String>, Vec<String>) {
        let config = read(&[("TRACING_ENABLED", "true"), (name, value)]).expect("valid");
        (config.traces.clone(), config.warnings().to_vec())
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn the_path_of_traces_is_added_to_the_collector_s_address() {
        for (given, whole) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("http://10.0.0.7:9/otlp", "http://10.0.0.7:9/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
            ("http://collector", "http://collector/v1/traces"),
        ] {
            assert_eq!(to("OTEL_EXPORTER_OTLP_ENDPOINT", given), (Some(whole.to_owned()), Vec::new()));
        }
        let local = (Some("http://localhost:4318/v1/traces".to_owned()), Vec::new());
        assert_eq!(to("DEBUG", "false"), local);
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn an_address_of_jaeger_is_mapped_with_a_warning() {
        for given in ["http://jaeger:14268/api/traces", "jaeger:6831", "jaeger", "udp://jaeger:6831"] {
            let (traces, warnings) = to("JAEGER_ENDPOINT", given);
            assert_eq!(traces.as_deref(), Some("http://jaeger:4318/v1/traces"), "{given}");
            let remedy = "set OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318";
            assert!(warnings.len() == 1 && warnings[0].contains(remedy), "{warnings:?}");
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn the_port_of_grpc_is_taken_with_a_warning() {
        let (traces, warnings) = to("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert_eq!(traces.as_deref(), Some("http://collector:4317/v1/traces"));
        assert!(warnings.len() == 1 && warnings[0].contains("4318"), "{warnings:?}");
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn what_is_no_address_is_refused_with_its_rule() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:0"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:99999"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user@collector"),
            ("JAEGER_ENDPOINT", "http://"),
            ("JAEGER_ENDPOINT", "not a host"),
        ] {
            let error =
                read(&[("TRACING_ENABLED", "true"), (name, value)]).expect_err("is refused").to_string();
            assert!(error.starts_with(name) && error.contains("allowed is"), "{error}");
        }
    }
}
