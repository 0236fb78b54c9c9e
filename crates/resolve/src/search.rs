//! Fully qualified names that a host name may mean, by `search` and `ndots` of resolv.conf(5).

use resolv_conf::Config;

/// Longest name without its last dot (RFC 1035, section 2.3.4: 255 octets on the wire).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Names to ask for, in order and without the last dot; `None` if `host` is no host name.
pub(crate) fn names(host: &str, config: &Config) -> Option<Vec<String>> {
    let absolute = host.strip_suffix('.').unwrap_or(host);
    if !is_host_name(absolute) {
        return None;
    }
    // Some servers repeat the question in lower case, and an answer must repeat it exactly.
    let itself = absolute.to_ascii_lowercase();
    if absolute.len() < host.len() {
        return Some(vec![itself]);
    }
    let dots = absolute.bytes().filter(|&byte| byte == b'.').count();
    let domains = config.get_last_search_or_domain().map(|domain| domain.trim_matches('.'));
    let mut names: Vec<String> = domains
        .filter(|domain| is_host_name(domain))
        .map(|domain| format!("{itself}.{}", domain.to_ascii_lowercase()))
        .filter(|name| name.len() <= MAX_NAME)
        .collect();
    let few_dots = u32::try_from(dots).is_ok_and(|dots| dots < config.ndots);
    names.insert(if few_dots { names.len() } else { 0 }, itself);
    Some(names)
}

/// Returns whether `name` is made of labels that a host or a service may have. The underscore is in
/// no host name by RFC 952, and in many by practice.
fn is_host_name(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    name.len() <= MAX_NAME
        && name
            .split('.')
            .all(|label| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(fine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_with(config: &str, host: &str) -> Option<Vec<String>> {
        names(host, &Config::parse(config).unwrap())
    }

    fn is(names: Option<Vec<String>>, expected: &[&str]) {
        assert_eq!(names.unwrap(), expected);
    }

    #[test]
    fn appends_search_domains_to_short_names_first() {
        let config = "search node.example example.\n";
        is(names_with(config, "consul"), &["consul.node.example", "consul.example", "consul"]);
        is(
            names_with(config, "consul.a"),
            &["consul.a", "consul.a.node.example", "consul.a.example"],
        );
        is(names_with("domain example\n", "consul"), &["consul.example", "consul"]);
        is(names_with("", "consul"), &["consul"]);
    }

    #[test]
    fn counts_dots_by_ndots() {
        let config = "search example\noptions ndots:5\n";
        is(names_with(config, "consul.service"), &["consul.service.example", "consul.service"]);
    }

    #[test]
    fn leaves_absolute_names_alone() {
        is(names_with("search example\n", "consul."), &["consul"]);
    }

    #[test]
    fn lowers_the_case() {
        is(names_with("search Example\n", "Consul"), &["consul.example", "consul"]);
    }

    #[test]
    fn rejects_what_is_no_host_name() {
        let long = "x".repeat(64);
        let longer = ["x".repeat(63).as_str(); 5].join(".");
        for host in ["", ".", "a..b", "a b", "a\\.b", "bücher", "a/b", "[::1]", &long, &longer] {
            assert_eq!(names_with("", host), None, "{host:?}");
        }
    }
}
