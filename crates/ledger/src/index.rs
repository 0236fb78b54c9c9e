//! The index: a table of all host numbers of all owned blocks, threaded by a queue of the free
//! ones.
//!
//! It answers "which address has been free for longest?" in constant time, however many are
//! reserved, by reading and writing a handful of fixed-size records in place. A block's host
//! numbers stand in consecutive slots, from the slot that the block's file names.
//!
//! The file holds nothing that cannot be made again from `blocks/` and `reservations/` but the
//! order in which addresses were freed, and the addresses of reservations that cannot be read. It
//! says `dirty` while a change is under way; a reader who finds it dirty, or not to be an index at
//! all, rebuilds it ([`Index::rebuild`]). It says `incomplete` if such a reservation has no slot.

mod format;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use weft_model::{HostNumber, PoolIndex};

use format::{HEADER, Header, NONE, RECORD, offset, small};
pub(crate) use format::{Record, Slot, State};

/// Counts of addresses by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Addresses to be had.
    pub free: u32,
    /// Addresses held.
    pub reserved: u32,
}

/// A slot of a block that is being entered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) pool: PoolIndex,
    pub(crate) host: HostNumber,
    pub(crate) state: State,
    pub(crate) holder: u64,
}

/// The open index file. The caller holds the network's lock.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    header: Header,
}

/// Times at which addresses were freed, as far as an index to be replaced still tells.
pub(crate) type History = HashMap<(u8, u64), Record>;

impl Index {
    /// Opens the index at `path`, unless it is missing, dirty, damaged, or made for another
    /// definition of the network (`fingerprint`).
    pub(crate) fn open(path: &Path, fingerprint: u64) -> Option<Self> {
        let file = File::options().read(true).write(true).open(path).ok()?;
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = Header::decode(&bytes)?;
        let length = file.metadata().ok()?.len();
        let whole = length == offset(header.slots);
        (whole && !header.dirty && header.fingerprint == fingerprint)
            .then_some(Self { file, header })
    }

    /// The records that a dirty or outdated index still has.
    pub(crate) fn salvage(path: &Path) -> History {
        let Ok(bytes) = std::fs::read(path) else { return History::new() };
        if bytes.first_chunk::<HEADER>().and_then(Header::decode).is_none() {
            return History::new();
        }
        let records = bytes.get(HEADER..).unwrap_or_default().chunks_exact(RECORD);
        records
            .filter_map(|chunk| Record::decode(chunk.first_chunk()?))
            .filter(|record| record.state != State::Hole)
            .map(|record| ((record.pool, record.host), record))
            .collect()
    }

    /// The bytes of an index with these slots, in this order. Free addresses queue up in the order
    /// in which `history` says they were freed; those that were never held come first.
    /// `incomplete`: a reservation exists that none of the slots is known to be held by.
    pub(crate) fn rebuild(
        fresh: &[Fresh],
        history: &History,
        fingerprint: u64,
        incomplete: bool,
    ) -> Vec<u8> {
        let mut records: Vec<Record> = fresh
            .iter()
            .map(|slot| Record {
                host: slot.host.get(),
                holder: slot.holder,
                freed: history.get(&(slot.pool.get(), slot.host.get())).map_or(0, |r| r.freed),
                prev: NONE,
                next: NONE,
                pool: slot.pool.get(),
                state: slot.state,
            })
            .collect();
        let mut queue: Vec<(u64, u32)> = (0u32..)
            .zip(&records)
            .filter(|(_, record)| record.state == State::Free)
            .map(|(slot, record)| (record.freed, slot))
            .collect();
        queue.sort_unstable();
        for pair in queue.windows(2) {
            let ((_, a), (_, b)) = (pair[0], pair[1]);
            records[a as usize].next = b;
            records[b as usize].prev = a;
        }
        let count = |state| records.iter().filter(|record| record.state == state).count();
        let header = Header {
            slots: small(records.len()),
            head: queue.first().map_or(NONE, |(_, slot)| *slot),
            tail: queue.last().map_or(NONE, |(_, slot)| *slot),
            free: small(queue.len()),
            reserved: small(count(State::Reserved)),
            holes: NONE,
            releases: records.iter().map(|record| record.freed).max().unwrap_or(0),
            fingerprint,
            dirty: false,
            incomplete,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend(records.iter().flat_map(Record::encode));
        bytes
    }

    /// Counts of free and held addresses.
    pub(crate) fn counts(&self) -> Counts {
        Counts { free: self.header.free, reserved: self.header.reserved }
    }

    /// Returns whether an address that counts as free may be held by a reservation that cannot be
    /// read.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.header.incomplete
    }

    /// The address that has been free for longest.
    pub(crate) fn oldest_free(&self) -> Option<Slot> {
        (self.header.head != NONE).then_some(self.header.head)
    }

    /// The record in `slot`.
    pub(crate) fn get(&self, slot: Slot) -> Result<Record, std::io::Error> {
        let mut bytes = [0; RECORD];
        self.file.read_exact_at(&mut bytes, offset(slot))?;
        decode(&bytes)
    }

    /// The records of a block's `length` slots from `base` on, by one read.
    pub(crate) fn of_block(&self, base: Slot, length: u64) -> Result<Vec<Record>, std::io::Error> {
        let length = usize::try_from(length).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; length * RECORD];
        self.file.read_exact_at(&mut bytes, offset(base))?;
        bytes.chunks_exact(RECORD).filter_map(|chunk| chunk.first_chunk()).map(decode).collect()
    }

    /// The slot that `holder` holds. Reads the whole table: for repairs only.
    pub(crate) fn find_holder(&self, holder: u64) -> Result<Option<Slot>, std::io::Error> {
        for slot in 0..self.header.slots {
            let record = self.get(slot)?;
            if record.state == State::Reserved && record.holder == holder {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Says that index and reservations may disagree from here on.
    pub(crate) fn begin(&mut self) -> Result<(), std::io::Error> {
        self.header.dirty = true;
        self.put_header()
    }

    /// Says that index and reservations agree again.
    pub(crate) fn commit(&mut self) -> Result<(), std::io::Error> {
        self.header.dirty = false;
        self.put_header()
    }

    /// Takes `slot` off the queue for `holder`.
    pub(crate) fn reserve(&mut self, slot: Slot, holder: u64) -> Result<(), std::io::Error> {
        let record = self.get(slot)?;
        self.unlink(&record)?;
        self.header.reserved += 1;
        self.put(slot, &Record { state: State::Reserved, holder, prev: NONE, next: NONE, ..record })
    }

    /// Gives a reserved slot to another holder.
    pub(crate) fn rehold(&self, slot: Slot, holder: u64) -> Result<(), std::io::Error> {
        self.put(slot, &Record { holder, ..self.get(slot)? })
    }

    /// Puts `slot` at the end of the queue.
    pub(crate) fn release(&mut self, slot: Slot) -> Result<(), std::io::Error> {
        self.header.releases += 1;
        self.header.reserved = self.header.reserved.saturating_sub(1);
        self.header.free += 1;
        let tail = std::mem::replace(&mut self.header.tail, slot);
        if tail == NONE {
            self.header.head = slot;
        } else {
            self.put(tail, &Record { next: slot, ..self.get(tail)? })?;
        }
        let freed = self.header.releases;
        let record = self.get(slot)?;
        self.put(
            slot,
            &Record { state: State::Free, holder: 0, freed, prev: tail, next: NONE, ..record },
        )
    }

    /// Enters a block's host numbers and says from which slot on. They were free for ever, so they
    /// go to the head of the queue.
    pub(crate) fn append(&mut self, fresh: &[Fresh]) -> Result<Slot, std::io::Error> {
        let base = self.take_hole(fresh.len())?.unwrap_or(self.header.slots);
        let free: Vec<u32> = (base..)
            .zip(fresh)
            .filter(|(_, f)| f.state == State::Free)
            .map(|(slot, _)| slot)
            .collect();
        let old_head = self.header.head;
        let mut place = 0;
        // One write for all: a block may have thousands.
        let mut bytes = Vec::with_capacity(fresh.len() * RECORD);
        for fresh in fresh {
            let (mut prev, mut next) = (NONE, NONE);
            if fresh.state == State::Free {
                prev = if place == 0 { NONE } else { free[place - 1] };
                next = free.get(place + 1).copied().unwrap_or(old_head);
                place += 1;
            }
            let Fresh { pool, host, state, holder } = *fresh;
            let (pool, host) = (pool.get(), host.get());
            let record = Record { host, holder, freed: 0, prev, next, pool, state };
            bytes.extend_from_slice(&record.encode());
        }
        self.file.write_all_at(&bytes, offset(base))?;
        if let (Some(first), Some(last)) = (free.first(), free.last()) {
            self.header.head = *first;
            if old_head == NONE {
                self.header.tail = *last;
            } else {
                self.put(old_head, &Record { prev: *last, ..self.get(old_head)? })?;
            }
        }
        self.header.free += small(free.len());
        self.header.slots = self.header.slots.max(base + small(fresh.len()));
        Ok(base)
    }

    /// Takes a block's slots out of the table. None of them is reserved.
    pub(crate) fn remove(&mut self, base: Slot, length: u64) -> Result<(), std::io::Error> {
        let end = base + u32::try_from(length).unwrap_or(0);
        for slot in base..end {
            let record = self.get(slot)?;
            if record.state == State::Free {
                self.unlink(&record)?;
            }
            let hole = Record { state: State::Hole, host: 0, prev: NONE, next: NONE, ..record };
            self.put(slot, &hole)?;
        }
        let next = std::mem::replace(&mut self.header.holes, base);
        self.put(base, &Record { host: length, next, ..self.get(base)? })
    }

    /// The first hole, if it is of the right length. Blocks of a network are nearly always of one
    /// size; a hole that does not fit stays until the next rebuild.
    fn take_hole(&mut self, length: usize) -> Result<Option<Slot>, std::io::Error> {
        let base = self.header.holes;
        if base == NONE {
            return Ok(None);
        }
        let record = self.get(base)?;
        if record.host != length as u64 {
            return Ok(None);
        }
        self.header.holes = record.next;
        Ok(Some(base))
    }

    /// Takes a free record out of the queue.
    fn unlink(&mut self, record: &Record) -> Result<(), std::io::Error> {
        match record.prev {
            NONE => self.header.head = record.next,
            prev => self.put(prev, &Record { next: record.next, ..self.get(prev)? })?,
        }
        match record.next {
            NONE => self.header.tail = record.prev,
            next => self.put(next, &Record { prev: record.prev, ..self.get(next)? })?,
        }
        self.header.free = self.header.free.saturating_sub(1);
        Ok(())
    }

    fn put(&self, slot: Slot, record: &Record) -> Result<(), std::io::Error> {
        self.file.write_all_at(&record.encode(), offset(slot))
    }

    fn put_header(&self) -> Result<(), std::io::Error> {
        self.file.write_all_at(&self.header.encode(), 0)
    }
}

fn decode(bytes: &[u8; RECORD]) -> Result<Record, std::io::Error> {
    Record::decode(bytes).ok_or_else(|| std::io::Error::other("the index holds a bad record"))
}
