//! Addresses of Consul: what is connected to, and what may be shown of it.

/// `host:port`, with the port filled in.
pub(super) fn authority(rest: &str, port: u16) -> Option<String> {
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    Some(if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:{port}") })
}

/// The store at `address`, for people: scheme, host and port, or the path of a socket. Anything
/// else that an address may hold, a user, a password, a query, is left out, and so is an address
/// that cannot be one, which may be a token in the wrong place.
pub(crate) fn shown(address: &str) -> String {
    if let Some(path) = address.strip_prefix("unix://") {
        return format!("Consul at unix://{path}");
    }
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if !["", "http", "https"].contains(&scheme)
        || rest.contains('@')
        || authority.is_empty()
        || !authority.chars().all(is_plain)
        || is_uuid(authority)
    {
        return "Consul".to_owned();
    }
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("Consul at {scheme}{authority}")
}

/// Returns whether the text has the form of a token that Consul made: a UUID, which no host's name
/// has.
pub(super) fn is_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_the_port() {
        assert_eq!(authority("a:1/x", 80).unwrap(), "a:1");
        assert_eq!(authority("[::1]", 80).unwrap(), "[::1]:80");
        assert_eq!(authority("", 80), None);
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        for (address, expected) in [
            ("http://198.18.0.9:8500", "Consul at http://198.18.0.9:8500"),
            ("consul.example:8501", "Consul at consul.example:8501"),
            ("https://[2001:db8::1]:8501", "Consul at https://[2001:db8::1]:8501"),
            ("unix:///run/consul.sock", "Consul at unix:///run/consul.sock"),
            ("http://a:1/v1?token=secret", "Consul at http://a:1"),
            ("http://a:1?token=secret", "Consul at http://a:1"),
            ("http://user:secret@a:1", "Consul"),
            ("user:secret@a", "Consul"),
            ("http://a/secret@b", "Consul"),
            ("secret://a", "Consul"),
            ("6b1d8f50-4b7e-11f0-8de9-0242ac120002", "Consul"),
            ("", "Consul"),
        ] {
            assert_eq!(shown(address), expected, "{address}");
            let options = crate::ConsulOptions::at(address);
            assert!(!format!("{options:?}").contains("secret"), "{address}");
        }
    }
}
