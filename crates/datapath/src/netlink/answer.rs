//! Messages as the kernel sends them: header, then an object, an acknowledgement or the end of a
//! dump.
//!
//! Layouts are those of `linux/netlink.h`. Objects are left as bytes, so that a caller that wants
//! two attributes of 200,000 objects need not build all of each.

/// Length of a message's header (`struct nlmsghdr`).
const HEADER: usize = 16;

/// Types of messages that are no objects.
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Flags of an acknowledgement: the request's payload is left out; attributes follow.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// The attribute of an acknowledgement that holds the kernel's sentence (`NLMSGERR_ATTR_MSG`).
const ATTRIBUTE_MESSAGE: u16 = 1;

/// The kernel's refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The error number, positive.
    pub(crate) errno: i32,
    /// The kernel's own sentence (extended acknowledgement), if it has one.
    pub(crate) said: Option<String>,
}

/// A message of the kernel.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// The number of the request that it answers.
    pub(crate) sequence: u32,
    pub(crate) answer: Answer<'a>,
}

/// The content of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// The request was carried out.
    Acknowledged,
    /// The request was refused.
    Refused(Refusal),
    /// The end of a dump, with its error number; 0: none.
    Done(i32),
    /// An object's payload.
    Object(&'a [u8]),
}

/// The messages of one datagram.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        loop {
            let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
            let payload = self.rest.get(HEADER..length)?;
            let (kind, flags) = (u16_at(self.rest, 4)?, u16_at(self.rest, 6)?);
            let sequence = u32_at(self.rest, 8)?;
            self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            let answer = match kind {
                NLMSG_NOOP => continue,
                NLMSG_ERROR => acknowledgement(payload, flags)?,
                NLMSG_DONE => Answer::Done(i32_at(payload, 0).unwrap_or(0).saturating_neg()),
                _ => Answer::Object(payload),
            };
            return Some(Message { kind, flags, sequence, answer });
        }
    }
}

fn acknowledgement(payload: &[u8], flags: u16) -> Option<Answer<'_>> {
    let errno = i32_at(payload, 0)?.saturating_neg();
    if errno == 0 {
        return Some(Answer::Acknowledged);
    }
    // The request follows, its header at least; then the attributes.
    let capped = flags & NLM_F_CAPPED != 0;
    let request = if capped { HEADER } else { usize::try_from(u32_at(payload, 4)?).ok()? };
    let attributes = 4 + request.checked_next_multiple_of(4)?;
    let said = if flags & NLM_F_ACK_TLVS == 0 {
        None
    } else {
        attribute(payload.get(attributes..).unwrap_or_default(), ATTRIBUTE_MESSAGE)
    };
    let said = said.map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some(Answer::Refused(Refusal { errno, said }))
}

/// The value of the first attribute of type `kind`.
pub(crate) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes::of(attributes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Attributes: two bytes of length, two bytes of type, the value, padding to a multiple of four
/// (`struct nlattr`).
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.rest, 0)?);
        // The two highest bits are flags (`NLA_TYPE_MASK`).
        let kind = u16_at(self.rest, 2)? & 0x3fff;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn error(errno: i32, request: &[u8], attributes: &[u8]) -> Vec<u8> {
        [&(-errno).to_ne_bytes(), request, attributes].concat()
    }

    #[test]
    fn finds_sentence_behind_other_attributes() {
        let request = message(16, 0, &[]);
        let attributes = [8, 0, 2, 0, 1, 2, 3, 4, 7, 0, 1, 0, b'n', b'o', 0, 0];
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let bytes = message(NLMSG_ERROR, flags, &error(17, &request, &attributes));
        let refusal = Refusal { errno: 17, said: Some("no".into()) };
        let mut messages = Messages::of(&bytes);
        assert_eq!(messages.next().unwrap().answer, Answer::Refused(refusal.clone()));
        assert!(messages.next().is_none());

        // A kernel that does not leave the request's payload out.
        let request = message(16, 0, &[9; 10]);
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &error(17, &request, &attributes));
        assert_eq!(Messages::of(&bytes).next().unwrap().answer, Answer::Refused(refusal));
    }

    #[test]
    fn reads_every_message_of_a_datagram_and_ends_at_a_broken_one() {
        let mut bytes = message(16, 2, &[1, 2, 3]);
        bytes.extend(message(NLMSG_NOOP, 0, &[]));
        bytes.extend(message(NLMSG_ERROR, 0, &error(0, &message(16, 0, &[]), &[])));
        bytes.extend(message(NLMSG_DONE, 0, &(-5i32).to_ne_bytes()));
        bytes.extend(message(NLMSG_DONE, 0, &[]));
        bytes.extend([200, 0, 0, 0, 1]);
        let found: Vec<_> = Messages::of(&bytes).map(|message| message.answer).collect();
        let expected =
            [Answer::Object(&[1, 2, 3]), Answer::Acknowledged, Answer::Done(5), Answer::Done(0)];
        assert_eq!(found, expected);
    }

    #[test]
    fn ends_at_a_broken_attribute() {
        for broken in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 1], &[4, 0], &[]] {
            assert_eq!(Attributes::of(broken).next(), None);
        }
        let nested = [5, 0, 1, 0x80, 7, 0, 0, 0, 6, 0, 2, 0, 8, 9];
        let found: Vec<_> = Attributes::of(&nested).collect();
        assert_eq!(found, [(1, &[7][..]), (2, &[8, 9][..])]);
    }
}
