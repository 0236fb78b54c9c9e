//! Endpoints: the exception to the block rule.

use serde::{Deserialize, Serialize};

use crate::{LoanId, MacAddr, NodeName};

/// The record behind `endpoints/<network>/<address>`: this address lives on this node with this
/// MAC, whatever the owner of its block and the address itself would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The node on which the address is in use.
    pub node: NodeName,
    /// The MAC that answers for it.
    pub mac: MacAddr,
    /// The owner of the block that the address was lent from, if it was lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<NodeName>,
    /// The loan, if the address was lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loan: Option<LoanId>,
}
