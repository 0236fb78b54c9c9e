//! Loans: how an address of one node's block comes to be used on another node.
//!
//! The borrower writes a [`LoanRecord`] under `requests/<network>/<loan>`. The lender, the owner of
//! the block, answers it in the same record; if it grants the request it writes the address's
//! [`Endpoint`](crate::Endpoint) in the same transaction. The loan lasts as long as the endpoint
//! does.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{HostNumber, ModelError, NodeName, PoolIndex, Sticky, hex};

/// The name of a loan, drawn at random by the borrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoanId(u64);

impl LoanId {
    /// The loan with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for LoanId {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        hex::parse("loan", hex::Digits::Of64Bits, value).map(Self)
    }
}

impl Serialize for LoanId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LoanId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The record behind `requests/<network>/<loan>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoanRecord {
    /// The node that asks.
    pub borrower: NodeName,
    /// The node that is asked: the owner of the block.
    pub lender: NodeName,
    /// The address that is wanted; absent: any of the lender's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<IpAddr>,
    /// For whom, if the address is one that an identity had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// The lender's answer; absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<LoanAnswer>,
}

/// A lender's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoanAnswer {
    /// The host number is the borrower's until it deletes the endpoint.
    #[serde(rename_all = "camelCase")]
    Granted {
        /// The pool.
        pool: PoolIndex,
        /// The host number.
        host: HostNumber,
    },
    /// There will be no loan.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why, in words for the person who asked.
        reason: String,
        /// True if the address is in use by the very identity that it is asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_itself: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_digits() {
        let id = LoanId::new(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(id.to_string().parse::<LoanId>().unwrap(), id);
        for bad in ["", "ab", "00000000000000xx", "+0000000000000ab"] {
            assert!(bad.parse::<LoanId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn records_are_legible() {
        let record = LoanRecord {
            borrower: NodeName::new("b").unwrap(),
            lender: NodeName::new("a").unwrap(),
            wanted: Some("10.9.0.7".parse().unwrap()),
            sticky: None,
            answer: Some(LoanAnswer::Refused { reason: "in use".into(), by_itself: false }),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"borrower":"b","lender":"a","wanted":"10.9.0.7","#,
                r#""answer":{"refused":{"reason":"in use"}}}"#
            )
        );
        assert_eq!(serde_json::from_str::<LoanRecord>(&text).unwrap(), record);
    }
}
