//! Finding the API server: from a kubeconfig as kubectl does, or from inside a pod.

use super::{Cluster, Error, READ_TIMEOUT, chain, direct};
use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// What a person may say about the connection; the same flags as kubectl's.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Another file than `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Another context than the current one.
    pub context: Option<String>,
    /// Another cluster than the context's.
    pub cluster: Option<String>,
    /// Another user than the context's.
    pub user: Option<String>,
    /// The user to act as.
    pub impersonate: Option<String>,
    /// The groups to act as.
    pub impersonate_groups: Vec<String>,
    /// How long one request may take; `None`: the defaults of this program.
    pub request_timeout: Option<Duration>,
}

/// A cluster, and the namespace that the context names.
pub struct Connected {
    /// The connection.
    pub cluster: Cluster,
    /// The context's namespace, `default` where it names none.
    pub namespace: String,
}

/// Connects as kubectl would, for somebody who waits.
///
/// # Errors
/// [`Error::Connect`] with what is wrong in the kubeconfig.
pub async fn from_kubeconfig(options: &ConnectOptions) -> Result<Connected, Error> {
    let connect = |error: &(dyn std::error::Error + 'static)| Error::Connect { message: chain(error) };
    let choice = KubeConfigOptions {
        context: options.context.clone(),
        cluster: options.cluster.clone(),
        user: options.user.clone(),
    };
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| connect(&error))?;
            Config::from_custom_kubeconfig(file, &choice).await.map_err(|error| connect(&error))?
        }
        None => Config::from_kubeconfig(&choice).await.map_err(|error| connect(&error))?,
    };
    if options.impersonate.is_some() {
        config.auth_info.impersonate.clone_from(&options.impersonate);
    }
    if !options.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(options.impersonate_groups.clone());
    }
    if bypasses_proxy(&config.cluster_url, |name| std::env::var(name).ok()) {
        config.proxy_url = None;
    }
    let namespace = config.default_namespace.clone();
    Ok(Connected { cluster: clients(config, options.request_timeout, by_kube)?.impatient(), namespace })
}

/// Connects with the service account of the pod that this runs in.
///
/// # Errors
/// [`Error::Connect`] outside of a pod.
pub fn in_cluster() -> Result<Cluster, Error> {
    within(Config::incluster().map_err(|error| Error::Connect { message: chain(&error) })?)
}

/// Connects to an API server that is near: without a proxy, and without gzip, which costs the API server as much as the
/// whole pipeline here.
///
/// # Errors
/// [`Error::Connect`] with what is wrong in the config.
pub fn within(mut config: Config) -> Result<Cluster, Error> {
    config.disable_compression = true;
    clients(config, None, direct::client)
}

fn by_kube(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(|error| Error::Connect { message: chain(&error) })
}

fn clients(
    mut config: Config,
    request_timeout: Option<Duration>,
    client: impl Fn(Config) -> Result<Client, Error>,
) -> Result<Cluster, Error> {
    let agent = concat!("kubectl-backup/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, HeaderValue::from_static(agent)));
    config.default_retry = false; // `call` has the one retry policy
    let mut api = config.clone();
    api.read_timeout = Some(request_timeout.unwrap_or(READ_TIMEOUT));
    api.reset_reader_on_write = true;
    Ok(Cluster::new(client(api)?, by_kube(config)?))
}

/// Whether `NO_PROXY` names the API server's host. kube 5.0.0 compares it with the proxy's own host instead.
fn bypasses_proxy(server: &http::Uri, env: impl Fn(&str) -> Option<String>) -> bool {
    let Some(host) = server.host() else { return false };
    let list = env("NO_PROXY").or_else(|| env("no_proxy")).unwrap_or_default();
    list.split(',').map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| no_proxy_matches(rule, host))
}

/// One entry of `NO_PROXY`: `*`, a host, a domain with or without a leading dot, an address, or a CIDR.
fn no_proxy_matches(rule: &str, host: &str) -> bool {
    use std::net::IpAddr;
    if rule == "*" || rule.eq_ignore_ascii_case(host) {
        return true;
    }
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    if let (Some((network, bits)), Some(address)) = (rule.split_once('/'), address) {
        let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
        return match (network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) if bits <= 32 => {
                (n.to_bits() ^ a.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(n), IpAddr::V6(a)) if bits <= 128 => {
                (n.to_bits() ^ a.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        };
    }
    let domain = rule.trim_start_matches('.').to_ascii_lowercase();
    host.to_ascii_lowercase().strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a server of the test's own, and tells what the request was.
    async fn asked(
        client: impl Fn(Config) -> Result<Client, Error>,
        answer: String,
    ) -> (Result<String, Error>, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let answered = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = connection.read(&mut request).await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).to_lowercase()
        });
        let cluster = clients(Config::new(server), None, client).unwrap();
        (cluster.version().await, answered.await.unwrap())
    }

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn every_request_says_who_asks() {
        let body = answer(r#"{"gitVersion":"v1.36.3"}"#);
        for (version, request) in [asked(by_kube, body.clone()).await, asked(direct::client, body).await] {
            assert_eq!(version.unwrap(), "v1.36.3");
            let agents: Vec<&str> = request.lines().filter(|line| line.starts_with("user-agent:")).collect();
            assert_eq!(agents, [concat!("user-agent: kubectl-backup/", env!("CARGO_PKG_VERSION"))]);
        }
    }

    #[tokio::test]
    async fn large_answers_come_whole_inside_a_cluster() {
        let version = "v".repeat(1 << 20);
        let (told, _) = asked(direct::client, answer(&format!(r#"{{"gitVersion":"{version}"}}"#))).await;
        assert!(told.unwrap() == version);
    }

    #[test]
    fn no_proxy_is_compared_with_the_api_server() {
        let server: http::Uri = "https://10.1.2.3:6443".parse().unwrap();
        let bypasses = |list: &str| bypasses_proxy(&server, |name| (name == "NO_PROXY").then(|| list.to_owned()));
        for yes in ["*", "10.1.2.3", "10.0.0.0/8", "localhost, 10.1.2.0/24", "0.0.0.0/0"] {
            assert!(bypasses(yes), "{yes}");
        }
        for no in ["", "10.2.0.0/16", "example.com", "10.1.2.3/99", "fd00::/8"] {
            assert!(!bypasses(no), "{no}");
        }
        assert!(no_proxy_matches(".eks.amazonaws.com", "ABC.gr7.eu-central-1.EKS.amazonaws.com"));
        assert!(no_proxy_matches("amazonaws.com", "x.amazonaws.com"));
        assert!(!no_proxy_matches("amazonaws.com", "xamazonaws.com"));
    }
}
