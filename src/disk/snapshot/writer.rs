//! Writes a snapshot under a temporary name; only when it is whole and on disk does it get its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;

use super::{
    FOOTER_BLOCK_BYTES, FORMAT,
    codec::{Draft, Kind, share_of_checksum},
    folder,
};
use crate::{
    disk::{
        file_system::{File, FileSystem},
        header::{self, Fields, StoreId},
    },
    pb::storage::SnapshotFooter,
};

/// Whole blocks of this size are written; what bypasses the page cache must be aligned to it.
const BLOCK_BYTES: usize = 4096;
/// Bytes of one write: short, so that a sync of the log beside it waits little.
const WRITE_BYTES: usize = 256 * 1024;

/// A snapshot in the making. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    file_system: Arc<dyn FileSystem>,
    directory: PathBuf,
    temporary: PathBuf,
    path: PathBuf,
    file: Arc<dyn File>,
    blocks: Blocks,
    /// Where the next write goes.
    position: u64,
    footer: SnapshotFooter,
    published: bool,
}

impl Writer {
    /// Begins the snapshot as of record `index`, in the folder of snapshots, which is created where missing.
    pub fn create(
        file_system: Arc<dyn FileSystem>,
        directory: &Path,
        store_id: StoreId,
        index: u64,
    ) -> io::Result<Self> {
        file_system.create_directory(directory)?;
        let path = directory.join(folder::file_name(index));
        let temporary = path.with_extension("tmp");
        let file = file_system.create_streamed(&temporary)?;
        let mut writer = Self {
            file_system,
            directory: directory.to_owned(),
            temporary,
            path,
            file,
            blocks: Blocks::new(),
            position: 0,
            footer: SnapshotFooter::default(),
            published: false,
        };
        writer.append(&header::encode(FORMAT, &Fields { sequence: 0, store_id, index }))?;
        Ok(writer)
    }

    /// Writes a frame with `items` messages, and empties the draft.
    pub fn frame(&mut self, kind: Kind, items: u32, draft: &mut Draft) -> io::Result<()> {
        let frame = draft.seal(kind, items, self.footer.frames);
        self.footer.frames += 1;
        self.footer.checksum = self.footer.checksum.wrapping_add(share_of_checksum(frame));
        match kind {
            Kind::Entries => self.footer.entries += u64::from(items),
            Kind::Answers => self.footer.answers += u64::from(items),
            Kind::History => self.footer.events += u64::from(items),
            Kind::Header | Kind::Footer | Kind::Reserved(_) => {}
        }
        self.append(frame)?;
        draft.clear();
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.position + self.blocks.filled as u64
    }

    /// Writes the footer and makes the file durable, still under its temporary name. Gives its length.
    pub fn seal(&mut self, state_hash: u128) -> io::Result<u64> {
        self.footer.frames_end = self.bytes();
        self.footer.state_hash = state_hash.to_be_bytes().to_vec().into();
        let padding_bytes = self.bytes().next_multiple_of(FOOTER_BLOCK_BYTES) - self.bytes();
        self.append(&vec![0; padding_bytes as usize])?;
        let mut draft = Draft::default();
        draft.payload().extend(self.footer.encode_to_vec());
        let mut block = draft.seal(Kind::Footer, 0, self.footer.frames).to_vec();
        block.resize(FOOTER_BLOCK_BYTES as usize, 0);
        self.append(&block)?;
        self.flush()?;
        self.file.sync_data()?;
        Ok(self.position)
    }

    /// Gives a sealed snapshot its name, for good. Gives its path.
    pub fn publish(mut self) -> io::Result<PathBuf> {
        self.file_system.rename(&self.temporary, &self.path)?;
        // From here on the file may bear its name: it is whole, so that does no harm if the rest fails.
        self.published = true;
        self.file_system.sync_directory(&self.directory)?;
        Ok(self.path.clone())
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = self.blocks.take_from(bytes);
            if self.blocks.filled == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is gathered: always whole blocks.
    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.blocks.filled();
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        self.blocks.filled = 0;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.published {
            // Room is given back at once; what stays is a leftover that the next start removes.
            let _ = self.file_system.remove(&self.temporary);
        }
    }
}

/// A buffer whose first byte lies at a multiple of a block.
#[derive(Debug)]
struct Blocks {
    bytes: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Blocks {
    fn new() -> Self {
        let bytes = vec![0; WRITE_BYTES + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        Self { bytes, start, filled: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.filled]
    }

    /// Takes as many bytes as fit and gives the rest.
    fn take_from<'bytes>(&mut self, bytes: &'bytes [u8]) -> &'bytes [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(WRITE_BYTES - self.filled));
        let at = self.start + self.filled;
        self.bytes[at..at + taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        rest
    }
}
