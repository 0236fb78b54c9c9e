//! The blocks that this node owns, and how full they are.

use weft_files::{self as files, FileError};
use weft_model::Block;

use super::{Counts, Ledger};
use crate::index::{Fresh, Slot, State};

impl Ledger {
    /// The blocks that this node knows to be its own, in order.
    pub fn blocks(&self) -> Result<Vec<Block>, FileError> {
        let names = files::names_in(&self.dir.blocks())?;
        let mut blocks: Vec<Block> = names.iter().filter_map(|name| name.parse().ok()).collect();
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Returns whether this node knows `block` to be its own.
    pub fn owns(&self, block: &Block) -> bool {
        self.dir.block(block).exists()
    }

    /// Counts of free and held addresses in all owned blocks.
    pub fn counts(&self) -> Result<Counts, FileError> {
        Ok(self.lock()?.index.counts())
    }

    /// Enters a block that the cluster store says is this node's, and none of whose addresses lives
    /// on another node. Entering it twice is no change.
    pub fn add_block(&self, block: &Block) -> Result<(), FileError> {
        let mut locked = self.lock()?;
        if self.owns(block) {
            return Ok(());
        }
        let fresh: Vec<Fresh> = self.fresh(block).collect();
        locked.change(|locked| {
            let base = locked.index.append(&fresh).map_err(self.index_error())?;
            self.put_block(block, base)
        })
    }

    /// Strikes out a block none of whose addresses is held, and says whether it did. Only after
    /// this may the block be given back to the cluster.
    pub fn remove_idle_block(&self, block: &Block) -> Result<bool, FileError> {
        let mut locked = self.lock()?;
        // A reservation that cannot be read may be of an address in it.
        if locked.unplaced()?.is_some() {
            return Ok(false);
        }
        let Some(base) = locked.base_of(block.pool(), block.first())? else {
            return Ok(false);
        };
        for (slot, _) in (base..).zip(block.hosts()) {
            let record = locked.index.get(slot).map_err(self.index_error())?;
            if record.state == State::Reserved {
                return Ok(false);
            }
        }
        locked.change(|locked| {
            files::remove(&self.dir.block(block))?;
            locked.index.remove(base, block.bits().size()).map_err(self.index_error())
        })?;
        Ok(true)
    }

    /// The owned blocks, each with how many of its addresses are free and held.
    pub fn usage(&self) -> Result<Vec<(Block, Counts)>, FileError> {
        let locked = self.lock()?;
        let mut usage = vec![];
        for block in self.blocks()? {
            let Some(base) = locked.base_of(block.pool(), block.first())? else { continue };
            let mut counts = Counts::default();
            let records = locked.index.of_block(base, block.bits().size());
            for record in records.map_err(self.index_error())? {
                match record.state {
                    State::Free => counts.free += 1,
                    State::Reserved => counts.reserved += 1,
                    State::Hole | State::Withheld => {}
                }
            }
            usage.push((block, counts));
        }
        Ok(usage)
    }

    /// Writes the file of a block whose slots start at `base`. The caller holds the lock.
    pub(super) fn put_block(&self, block: &Block, base: Slot) -> Result<(), FileError> {
        files::put(&self.dir.block(block), &self.scratch(), base.to_string().as_bytes())
    }
}
