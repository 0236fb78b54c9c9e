//! The CNI errors for ours.

use weft_allocator::AllocatorError;
use weft_cni::{CniError, Fault};

/// The cause of `error`.
pub fn fault(error: &AllocatorError) -> Fault {
    if error.is_configuration() {
        Fault::Configuration
    } else if error.is_transient() {
        Fault::Moment
    } else {
        Fault::Failure
    }
}

/// The CNI error for `error`, met while doing `what`.
pub fn cni_error(what: &str, error: impl Into<AllocatorError>) -> CniError {
    let error = error.into();
    CniError::met(fault(&error), &error, what)
}

#[cfg(test)]
mod tests {
    use weft_allocator::AllocatorError;
    use weft_cluster::ClusterError;
    use weft_cni::code;
    use weft_model::NodeName;

    use super::*;

    fn node() -> NodeName {
        NodeName::new("a").unwrap()
    }

    #[test]
    fn gives_the_code_of_another_try_to_what_may_work_later() {
        let (network, store) = ("red".parse().unwrap(), || "Consul at http://a:1".to_owned());
        let again: [AllocatorError; 4] = [
            ClusterError::RecordContended { node: node(), store: store(), tries: 16 }.into(),
            ClusterError::LeaseEnded { node: node(), store: store() }.into(),
            ClusterError::Contended { network }.into(),
            AllocatorError::StickyInUse {
                identity: "prod/db-0@eth0".into(),
                address: "10.9.0.7".into(),
                network: "red".parse().unwrap(),
                holder: "old/eth0".into(),
            },
        ];
        for error in again {
            let error = cni_error("reserve an address", error);
            assert_eq!(error.code, code::TRY_AGAIN_LATER, "{error}");
            let text = error.to_string();
            assert!(!text.contains("cannot be used now") && !text.contains("lend"), "{text}");
        }
    }

    #[test]
    fn a_node_of_another_name_is_a_fault_of_the_configuration() {
        let (noted, data_dir) = (NodeName::new("b").unwrap(), "/run/weft".into());
        let error = ClusterError::Renamed { noted, node: node(), data_dir };
        let error = cni_error("reserve an address", error);
        assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
    }
}
