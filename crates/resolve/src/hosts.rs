//! Names of `/etc/hosts`, in the format of hosts(5).

use std::net::IpAddr;

/// Addresses of all lines that list `host`, IPv4 first and otherwise in the order of the lines.
pub(crate) fn addresses(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = vec![];
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    // A stable sort.
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        127.0.0.1\tlocalhost\n\
        # 198.18.0.1 consul\n\
        fd00::9 consul.example consul # six\n\
        198.18.0.9 consul.example\tConsul\n\
        198.18.0.9 consul\n\
        bad.address consul\n\
        198.18.0.8 other # consul\n\
        198.18.0.7 consul";

    #[test]
    fn finds_every_line_that_lists_the_name() {
        let found = addresses(TEXT, "CONSUL");
        let expected = ["198.18.0.9", "198.18.0.7", "fd00::9"];
        assert_eq!(found, expected.map(|text| text.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn ignores_parts_of_names_and_comments() {
        assert!(addresses(TEXT, "consu").is_empty());
        assert!(addresses(TEXT, "example").is_empty());
        assert!(addresses(TEXT, "six").is_empty());
        assert!(addresses(TEXT, "198.18.0.9").is_empty());
    }
}
