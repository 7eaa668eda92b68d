//! A worker's decoder as a [`Decoder`]: one round trip for a feed, whatever was forked and cut before it.

use std::cell::RefCell;
use std::sync::Arc;

use inhouse_core::decode::{CancelToken, Decoder, Feed, SeqId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, Payload};
use crate::frame::MAX_BODY_BYTES;
use crate::message::{Edit, Opened, Reply, Request};

pub(crate) struct RemoteDecoder {
    connection: Arc<Connection>,
    decoder: u32,
    context_length: usize,
    reads_prompt_whole: bool,
    n_vocab: usize,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
    /// Changes that the worker has not been told yet. In a cell, since a save takes them along.
    edits: RefCell<Vec<Edit>>,
    /// `[n_rows, vocab]`, of the last feed.
    rows: Vec<f32>,
    n_rows: usize,
    /// Whether the worker's decoder must be dropped.
    broken: bool,
}

impl RemoteDecoder {
    pub fn new(connection: Arc<Connection>, opened: &Opened, n_vocab: usize) -> Self {
        Self {
            connection,
            decoder: opened.decoder,
            context_length: usize::try_from(opened.context_length).unwrap_or(usize::MAX),
            reads_prompt_whole: opened.reads_prompt_whole,
            n_vocab,
            lengths: vec![0; opened.max_sequences as usize],
            edits: RefCell::default(),
            rows: Vec::new(),
            n_rows: 0,
            broken: false,
        }
    }

    fn check_sequence(&self, seq: SeqId) -> Result<()> {
        if self.broken {
            let what = "the decoder failed before and cannot be used any more";
            return Err(Error::new(ErrorKind::Backend, what));
        }
        if (seq as usize) < self.lengths.len() {
            return Ok(());
        }
        let what = format!("sequence {seq} of a decoder with {} sequences", self.lengths.len());
        Err(Error::new(ErrorKind::InvalidArgument, what))
    }

    /// Remembers a change. What a later one undoes is not kept, so that there are never many.
    fn edit(&mut self, edit: Edit) {
        let edits = self.edits.get_mut();
        if let Edit::Rewind(seq, 0) | Edit::Fork(_, seq) = edit {
            // What became of the sequence before is of no interest, unless another was forked from it.
            let forked = edits.iter().any(|edit| matches!(edit, Edit::Fork(from, _) if *from == seq));
            if !forked {
                edits.retain(|edit| !matches!(edit, Edit::Rewind(of, _) | Edit::Fork(_, of) if *of == seq));
            }
        }
        edits.push(edit);
    }
}

impl Decoder for RemoteDecoder {
    fn max_sequences(&self) -> usize {
        self.lengths.len()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn reads_prompt_whole(&self) -> bool {
        self.reads_prompt_whole
    }

    fn len(&self, seq: SeqId) -> usize {
        self.lengths.get(seq as usize).copied().unwrap_or(0)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        feeds.iter().try_for_each(|feed| self.check_sequence(feed.seq))?;
        cancel.check()?;
        self.n_rows = 0;
        // Rows that are there already are written over; only more of them have to be made.
        self.rows.resize(feeds.len() * self.n_vocab, 0.0);
        let request = Request::Feed {
            decoder: self.decoder,
            edits: self.edits.take(),
            feeds: feeds.iter().map(|feed| (feed.seq, feed.tokens.len() as u32)).collect(),
        };
        let tokens: Vec<&[u8]> = feeds.iter().map(|feed| bytemuck::cast_slice(feed.tokens)).collect();
        let rows = std::mem::take(&mut self.rows);
        let payload = Payload { body: &tokens, rows, cancel: Some(cancel), ..Payload::default() };
        let answer = match self.connection.call(&request, payload) {
            Ok(answer) => answer,
            Err(error) => {
                self.broken = error.kind() == ErrorKind::Backend;
                if error.kind() == ErrorKind::Cancelled {
                    // The worker knows of a cancel, but not what it was for.
                    cancel.check()?;
                }
                return Err(error);
            }
        };
        self.rows = answer.rows;
        if !matches!(answer.reply, Reply::Rows) {
            self.broken = true;
            return Err(self.connection.protocol_error("it does not answer a feed with logits"));
        }
        self.n_rows = feeds.len();
        for feed in feeds {
            self.lengths[feed.seq as usize] += feed.tokens.len();
        }
        Ok(())
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        let row = if i < self.n_rows { self.rows.chunks_exact(self.n_vocab).nth(i) } else { None };
        row.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("the last call had no feed {i}")))
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        self.check_sequence(from)?;
        self.check_sequence(to)?;
        if from == to {
            return Ok(());
        }
        self.lengths[to as usize] = self.lengths[from as usize];
        self.edit(Edit::Fork(from, to));
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        self.check_sequence(seq)?;
        let length = &mut self.lengths[seq as usize];
        if len > *length {
            let what = format!("cannot rewind sequence {seq} to {len} tokens, it holds {length}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if len < *length {
            *length = len;
            self.edit(Edit::Rewind(seq, len as u64));
        }
        Ok(())
    }

    fn save(&self, seq: SeqId) -> Result<Vec<u8>> {
        self.check_sequence(seq)?;
        let request = Request::Save { decoder: self.decoder, edits: self.edits.take(), seq };
        let answer =
            self.connection.call(&request, Payload { limit: MAX_BODY_BYTES, ..Payload::default() })?;
        match answer.reply {
            Reply::Cells => Ok(answer.body),
            _ => Err(self.connection.protocol_error("it does not answer a save with cells")),
        }
    }

    fn restore(&mut self, seq: SeqId, len: usize, bytes: &[u8]) -> Result<()> {
        self.check_sequence(seq)?;
        self.n_rows = 0;
        let edits = self.edits.take();
        let request = Request::Restore { decoder: self.decoder, edits, seq, len: len as u64 };
        let payload = Payload { body: &[bytes], ..Payload::default() };
        match self.connection.call(&request, payload) {
            Ok(_) => {
                self.lengths[seq as usize] = len;
                Ok(())
            }
            Err(error) => {
                self.broken = error.kind() == ErrorKind::Backend;
                // A backend may have emptied the sequence, or left it: it is empty now for both sides.
                self.lengths[seq as usize] = 0;
                self.edit(Edit::Rewind(seq, 0));
                Err(error)
            }
        }
    }
}

impl Drop for RemoteDecoder {
    fn drop(&mut self) {
        self.connection.tell(&Request::Close { decoder: self.decoder });
    }
}
