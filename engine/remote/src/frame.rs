//! Frames: a head of 16 bytes (length of the message, number of the request, length of the body; little endian), a message
//! in JSON, and a body of raw bytes (tokens, logits, cells) that is copied no more often than the kernel does.

use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg};

/// Longest message: a chat template fits in, and what is bulky stands in the body.
pub(crate) const MAX_MESSAGE_BYTES: u32 = 4 << 20;
/// Longest body: the cells of a long sequence of a large model.
pub(crate) const MAX_BODY_BYTES: u64 = 16 << 30;
const HEAD_BYTES: usize = 16;

/// The lengths of a frame, and which request it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub request: u32,
    message_bytes: u32,
    pub body_bytes: u64,
}

/// What the other end sent breaks the protocol.
pub(crate) fn bad(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

impl Head {
    /// Reads a head; `UnexpectedEof` where the other end is gone.
    pub fn read(input: &mut dyn Read) -> std::io::Result<Self> {
        let mut bytes = [0; HEAD_BYTES];
        input.read_exact(&mut bytes)?;
        let [m0, m1, m2, m3, r0, r1, r2, r3, body @ ..] = bytes;
        let head = Self {
            request: u32::from_le_bytes([r0, r1, r2, r3]),
            message_bytes: u32::from_le_bytes([m0, m1, m2, m3]),
            body_bytes: u64::from_le_bytes(body),
        };
        if head.message_bytes > MAX_MESSAGE_BYTES || head.body_bytes > MAX_BODY_BYTES {
            return Err(bad("a frame is over the limit of its size"));
        }
        Ok(head)
    }

    pub fn read_message(&self, input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
        read_bytes(input, u64::from(self.message_bytes))
    }

    pub fn read_body(&self, input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
        read_bytes(input, self.body_bytes)
    }
}

/// Reads `n` bytes; memory grows with what has come.
fn read_bytes(input: &mut dyn Read, n: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if input.take(n).read_to_end(&mut bytes)? as u64 != n {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Writes a frame whose body is `parts` one after the other. Where the stream has a timeout, `waiting` is asked after each,
/// and its error ends the work.
///
/// Not through `Write`: a write to a socket whose other end is gone would end a host that does not ignore SIGPIPE.
pub(crate) fn write(
    stream: &UnixStream,
    request: u32,
    message: &[u8],
    parts: &[&[u8]],
    waiting: &mut dyn FnMut() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let message_bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let body_bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
    if message_bytes > MAX_MESSAGE_BYTES || body_bytes > MAX_BODY_BYTES {
        return Err(bad("a message is over the limit of its size"));
    }
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&message_bytes.to_le_bytes());
    head[4..8].copy_from_slice(&request.to_le_bytes());
    head[8..].copy_from_slice(&body_bytes.to_le_bytes());
    let parts: Vec<&[u8]> = [&head[..], message].into_iter().chain(parts.iter().copied()).collect();
    send(stream, &parts, waiting)
}

/// Writes `parts` one after the other, as [`write`] does.
pub(crate) fn send(
    stream: &UnixStream,
    parts: &[&[u8]],
    waiting: &mut dyn FnMut() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let some = &left[..left.len().min(MAX_SLICES)];
        match sendmsg::<()>(stream.as_raw_fd(), some, &[], MsgFlags::MSG_NOSIGNAL, None) {
            Ok(n) => IoSlice::advance_slices(&mut left, n),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => waiting()?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Pieces of one system call (IOV_MAX of Linux is 1024).
const MAX_SLICES: usize = 256;

/// A stream with a small buffer, so that a short frame takes one system call; long reads go past it.
pub(crate) struct Input<S> {
    stream: S,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S: Read> Input<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; 8 << 10].into(), start: 0, end: 0 }
    }

    /// A reader that asks `waiting` whenever the stream's timeout passes, and ends with its error.
    pub fn with<'a>(
        &'a mut self,
        waiting: &'a mut dyn FnMut() -> std::io::Result<()>,
    ) -> impl Read + use<'a, S> {
        Patient { input: self, waiting }
    }
}

struct Patient<'a, S> {
    input: &'a mut Input<S>,
    waiting: &'a mut dyn FnMut() -> std::io::Result<()>,
}

impl<S: Read> Read for Patient<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let input = &mut *self.input;
        loop {
            if input.start < input.end {
                let n = out.len().min(input.end - input.start);
                out[..n].copy_from_slice(&input.buffer[input.start..input.start + n]);
                input.start += n;
                return Ok(n);
            }
            let past = out.len() >= input.buffer.len();
            let read = input.stream.read(if past { &mut *out } else { &mut input.buffer });
            match read {
                Ok(n) if past || n == 0 => return Ok(n),
                Ok(n) => (input.start, input.end) = (0, n),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (self.waiting)()?,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forever() -> std::io::Result<()> {
        Ok(())
    }

    #[test]
    fn frames_of_every_size_arrive_whole() {
        let (left, right) = UnixStream::pair().unwrap();
        left.set_write_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
        let bodies: Vec<Vec<u8>> =
            [0, 1, 100, 8 << 10, 300_000, 3_000_000].map(|n| (0..n).map(|i| i as u8).collect()).to_vec();
        let sent = bodies.clone();
        let writer = std::thread::spawn(move || {
            for (i, body) in sent.iter().enumerate() {
                // In many parts, some of them empty.
                let parts: Vec<&[u8]> = body.chunks(body.len() / 1000 + 1).chain([&[][..]]).collect();
                write(&left, i as u32, b"{}", &parts, &mut forever).unwrap();
            }
        });
        let mut input = Input::new(&right);
        let mut forever = forever;
        let mut input = input.with(&mut forever);
        for (i, body) in bodies.iter().enumerate() {
            let head = Head::read(&mut input).unwrap();
            assert_eq!((head.request, head.body_bytes), (i as u32, body.len() as u64));
            assert_eq!(head.read_message(&mut input).unwrap(), b"{}");
            assert!(head.read_body(&mut input).unwrap() == *body);
        }
        writer.join().unwrap();
        assert_eq!(Head::read(&mut input).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_that_lies_costs_nothing() {
        let mut bytes = [0xff; 16];
        assert!(Head::read(&mut &bytes[..]).is_err());
        bytes[..4].copy_from_slice(&MAX_MESSAGE_BYTES.to_le_bytes());
        bytes[8..].copy_from_slice(&MAX_BODY_BYTES.to_le_bytes());
        let head = Head::read(&mut &bytes[..]).unwrap();
        assert!(head.read_message(&mut &[7; 100][..]).is_err());
        assert!(head.read_body(&mut &[7; 100][..]).is_err());
    }

    #[test]
    fn a_write_to_nobody_is_an_error() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        assert!(write(&left, 0, b"{}", &[], &mut forever).is_err());
    }
}
