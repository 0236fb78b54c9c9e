//! The bytes of the index file: a header of fixed size, then a record for each slot.
//!
//! Multi-byte numbers are in the machine's own byte order: the file never leaves the node, nor
//! outlives the boot.

const MAGIC: u64 = u64::from_be_bytes(*b"weftidx1");
/// Bytes of the header.
pub(super) const HEADER: usize = 64;
/// Bytes of a record.
pub(super) const RECORD: usize = 40;

/// The end of a chain of slots.
pub(super) const NONE: u32 = u32::MAX;

/// The place of a host number in the table.
pub(crate) type Slot = u32;

/// State of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No block uses the slot. The first slot of such a hole carries its length in `host`.
    Hole,
    /// To be had.
    Free,
    /// Held by a reservation.
    Reserved,
    /// Never handed out: gateway, excluded, out of range.
    Withheld,
}

/// One slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) host: u64,
    /// [`crate::Holder::hash`] of the holder while reserved.
    pub(crate) holder: u64,
    /// Counts up with each release; 0 for an address that was never held.
    pub(super) freed: u64,
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(crate) pool: u8,
    pub(crate) state: State,
}

/// The header before the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) slots: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) free: u32,
    pub(super) reserved: u32,
    pub(super) holes: u32,
    pub(super) releases: u64,
    pub(super) fingerprint: u64,
    pub(super) dirty: bool,
    /// A reservation exists that cannot be read and that no slot is known to be held by.
    pub(super) incomplete: bool,
}

/// Place of a slot in the file, in bytes.
pub(super) fn offset(slot: Slot) -> u64 {
    HEADER as u64 + u64::from(slot) * RECORD as u64
}

/// A count of slots. 2³² of them would be an index of 160 GB.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&MAGIC.to_ne_bytes());
        let numbers = [self.slots, self.head, self.tail, self.free, self.reserved, self.holes];
        for (place, number) in bytes[8..32].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes[32..40].copy_from_slice(&self.releases.to_ne_bytes());
        bytes[40..48].copy_from_slice(&self.fingerprint.to_ne_bytes());
        bytes[48] = u8::from(self.dirty) | u8::from(self.incomplete) << 1;
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_ne_bytes(*bytes[at..].first_chunk()?));
        let short = |at: usize| Some(u32::from_ne_bytes(*bytes[at..].first_chunk()?));
        (long(0)? == MAGIC).then_some(())?;
        Some(Self {
            slots: short(8)?,
            head: short(12)?,
            tail: short(16)?,
            free: short(20)?,
            reserved: short(24)?,
            holes: short(28)?,
            releases: long(32)?,
            fingerprint: long(40)?,
            dirty: bytes[48] & !2 != 0,
            incomplete: bytes[48] & 2 != 0,
        })
    }
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        for (place, number) in
            bytes[0..24].chunks_exact_mut(8).zip([self.host, self.holder, self.freed])
        {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes[24..28].copy_from_slice(&self.prev.to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.next.to_ne_bytes());
        bytes[32] = self.pool;
        bytes[33] = match self.state {
            State::Hole => 0,
            State::Free => 1,
            State::Reserved => 2,
            State::Withheld => 3,
        };
        bytes
    }

    pub(super) fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_ne_bytes(*bytes[at..].first_chunk()?));
        let short = |at: usize| Some(u32::from_ne_bytes(*bytes[at..].first_chunk()?));
        Some(Self {
            host: long(0)?,
            holder: long(8)?,
            freed: long(16)?,
            prev: short(24)?,
            next: short(28)?,
            pool: bytes[32],
            state: match bytes[33] {
                0 => State::Hole,
                1 => State::Free,
                2 => State::Reserved,
                3 => State::Withheld,
                _ => return None,
            },
        })
    }
}
