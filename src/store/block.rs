//! Rows of handles, as both kinds of index keep them. They lie in an arena too, of their own, since records and rows of
//! other sizes would leave gaps in each other's pages: so the memory of an index comes back like that of records.
//!
//! ```text
//!  0  u16      bit 0: the arena's · bits 3–4: the index it belongs to
//!  2  u16      room, in handles
//!  4  u32      number of the table             (hash index)
//!  8  u32 × room   handles
//!     u16 × room   tags, in ascending order    (hash index)
//! ```

use super::{
    arena::Arena,
    page::{ARENA_BITS, UNIT_BYTES},
};

const HEAD_BYTES: usize = 8;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
const KIND_SHIFT: u8 = 3;
/// Room grows and shrinks by so many handles: blocks stay nearly full, where doubling would leave a third of them empty.
pub const STEP: usize = 32;

/// The index that a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The hash index.
    Table,
    /// Keys in order.
    Keys,
    /// Deadlines in order.
    Deadlines,
}

/// A block: where it is and how much of it is used.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub handle: u32,
    pub length: u16,
    pub room: u16,
}

impl Kind {
    /// The kind of the block that a piece is.
    pub fn of(piece: &[u8]) -> Self {
        match (piece[0] >> KIND_SHIFT) & 3 {
            0 => Self::Table,
            1 => Self::Keys,
            _ => Self::Deadlines,
        }
    }

    fn entry_bytes(self) -> usize {
        match self {
            Self::Table => 6,
            Self::Keys | Self::Deadlines => 4,
        }
    }

    /// Units of a block with this room.
    pub fn units(self, room: usize) -> usize {
        Arena::units_for(HEAD_BYTES + room * self.entry_bytes())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Room of the block that a piece is.
pub fn room_of(piece: &[u8]) -> usize {
    usize::from(u16_at(piece, 2))
}

/// Number of the table whose block a piece is.
pub fn table_of(piece: &[u8]) -> u32 {
    u32_at(piece, 4)
}

/// The first handle of the block that a piece is.
pub fn first_of(piece: &[u8]) -> u32 {
    u32_at(piece, HEAD_BYTES)
}

impl Block {
    /// An empty block with room for `room` handles; `None` when no memory is left.
    pub fn new(arena: &mut Arena, kind: Kind, room: usize) -> Option<Self> {
        let units = kind.units(room);
        let handle = arena.allocate(units)?;
        let piece = arena.get_mut(handle, units);
        piece[0] = piece[0] & ARENA_BITS | (kind as u8) << KIND_SHIFT;
        piece[2..4].copy_from_slice(&(room as u16).to_le_bytes());
        piece[4..8].fill(0);
        Some(Self { handle, length: 0, room: room as u16 })
    }

    /// How many handles it holds.
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// The handle at a slot that is in use.
    pub fn at(&self, arena: &Arena, slot: usize) -> u32 {
        u32_at(arena.get(self.handle), HEAD_BYTES + slot * 4)
    }

    fn handle_bytes<'arena>(&self, arena: &'arena Arena) -> &'arena [u8] {
        if self.length == 0 { &[] } else { &arena.get(self.handle)[HEAD_BYTES..][..self.len() * 4] }
    }

    /// The handles.
    pub fn handles<'arena>(
        &self,
        arena: &'arena Arena,
    ) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + 'arena {
        self.handle_bytes(arena).chunks_exact(4).map(|bytes| u32_at(bytes, 0))
    }

    /// The slot of a handle. A line of memory is compared as one, without a branch for each handle in it.
    pub fn slot_of(&self, arena: &Arena, handle: u32) -> Option<usize> {
        let found = |bytes: &[u8]| u32_at(bytes, 0) == handle;
        for (number, line) in self.handle_bytes(arena).chunks(LINE_BYTES).enumerate() {
            if line.chunks_exact(4).fold(false, |any, bytes| any | found(bytes)) {
                let within = line.chunks_exact(4).position(found)?;
                return Some(number * (LINE_BYTES / 4) + within);
            }
        }
        None
    }

    /// Bytes of the tags.
    pub fn tags<'arena>(&self, arena: &'arena Arena) -> &'arena [u8] {
        match self.length {
            0 => &[],
            _ => &arena.get(self.handle)[HEAD_BYTES + usize::from(self.room) * 4..][..self.len() * 2],
        }
    }

    /// Puts another handle at a slot that is in use.
    pub fn set(&self, arena: &mut Arena, kind: Kind, slot: usize, handle: u32) {
        let at = HEAD_BYTES + slot * 4;
        self.piece(arena, kind)[at..at + 4].copy_from_slice(&handle.to_le_bytes());
    }

    /// Sets the number of the table.
    pub fn set_table(&self, arena: &mut Arena, number: u32) {
        if self.room > 0 {
            self.piece(arena, Kind::Table)[4..8].copy_from_slice(&number.to_le_bytes());
        }
    }

    /// Adds a handle at a slot, and its tag. `None` when no memory is left for more room; then nothing changes.
    pub fn insert(&mut self, arena: &mut Arena, kind: Kind, slot: usize, handle: u32, tag: u16) -> Option<()> {
        if self.length == self.room {
            self.resize(arena, kind, self.len() + STEP)?;
        }
        let (length, room) = (self.len(), usize::from(self.room));
        let piece = self.piece(arena, kind);
        let at = HEAD_BYTES + slot * 4;
        piece.copy_within(at..HEAD_BYTES + length * 4, at + 4);
        piece[at..at + 4].copy_from_slice(&handle.to_le_bytes());
        if kind == Kind::Table {
            let tags = HEAD_BYTES + room * 4;
            let at = tags + slot * 2;
            piece.copy_within(at..tags + length * 2, at + 2);
            piece[at..at + 2].copy_from_slice(&tag.to_le_bytes());
        }
        self.length += 1;
        Some(())
    }

    /// Takes the handle at a slot out. Room that is left over goes.
    pub fn remove(&mut self, arena: &mut Arena, kind: Kind, slot: usize) {
        let (length, room) = (self.len(), usize::from(self.room));
        let piece = self.piece(arena, kind);
        let at = HEAD_BYTES + slot * 4;
        piece.copy_within(at + 4..HEAD_BYTES + length * 4, at);
        if kind == Kind::Table {
            let tags = HEAD_BYTES + room * 4;
            piece.copy_within(tags + slot * 2 + 2..tags + length * 2, tags + slot * 2);
        }
        self.length -= 1;
        if self.length == 0 {
            self.release(arena, kind);
        } else if room - self.len() >= 2 * STEP {
            // Without memory for the smaller block the larger one stays.
            let _ = self.resize(arena, kind, self.len() + STEP);
        }
    }

    /// Replaces everything in it. `None` when no memory is left; then nothing changes.
    pub fn fill(&mut self, arena: &mut Arena, kind: Kind, entries: &[(u32, u16)]) -> Option<()> {
        let room = entries.len() + STEP / 2;
        let mut new = Self::new(arena, kind, room)?;
        let piece = new.piece(arena, kind);
        for (slot, (handle, tag)) in entries.iter().enumerate() {
            piece[HEAD_BYTES + slot * 4..][..4].copy_from_slice(&handle.to_le_bytes());
            if kind == Kind::Table {
                piece[HEAD_BYTES + room * 4 + slot * 2..][..2].copy_from_slice(&tag.to_le_bytes());
            }
        }
        new.length = entries.len() as u16;
        self.release(arena, kind);
        *self = new;
        Some(())
    }

    /// Gives its memory back.
    pub fn release(&mut self, arena: &mut Arena, kind: Kind) {
        if self.room > 0 {
            arena.release(self.handle, kind.units(usize::from(self.room)));
        }
        *self = Self::EMPTY;
    }

    /// No block at all: what has no handles needs no memory.
    pub const EMPTY: Self = Self { handle: 0, length: 0, room: 0 };

    fn piece<'arena>(&self, arena: &'arena mut Arena, kind: Kind) -> &'arena mut [u8] {
        arena.get_mut(self.handle, kind.units(usize::from(self.room)))
    }

    fn resize(&mut self, arena: &mut Arena, kind: Kind, room: usize) -> Option<()> {
        let mut new = Self::new(arena, kind, room)?;
        if self.room > 0 {
            let old = arena.get(self.handle)[..kind.units(usize::from(self.room)) * UNIT_BYTES].to_vec();
            let (length, old_room) = (self.len(), usize::from(self.room));
            let piece = new.piece(arena, kind);
            piece[4..HEAD_BYTES + length * 4].copy_from_slice(&old[4..HEAD_BYTES + length * 4]);
            if kind == Kind::Table {
                let from = &old[HEAD_BYTES + old_room * 4..][..length * 2];
                piece[HEAD_BYTES + room * 4..][..length * 2].copy_from_slice(from);
            }
        }
        new.length = self.length;
        self.release(arena, kind);
        *self = new;
        Some(())
    }
}
