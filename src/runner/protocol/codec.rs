//! The plain parts of a message: numbers, flags, byte strings, lists.
//!
//! Numbers are little endian; a byte string is its length (u64) and its bytes; an option is a flag and, when the
//! flag is set, the value. [`Reader`] never reads outside its body and never reserves memory for a length it
//! has not checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{LENGTH_BYTES, MAX_FRAME_BYTES, ProtocolError, VERSION};

/// Builds one frame.
pub(super) struct Writer {
    frame: Vec<u8>,
}

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut frame = Vec::with_capacity(512);
        frame.extend_from_slice(&[0; LENGTH_BYTES]);
        frame.extend_from_slice(&[VERSION, kind]);
        Self { frame }
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.frame.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.frame.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.frame.push(u8::from(value));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.frame.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &OsStr) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Fills in the length.
    pub(super) fn into_frame(mut self) -> Result<Vec<u8>, ProtocolError> {
        let length = self.frame.len() - LENGTH_BYTES;
        if length > MAX_FRAME_BYTES {
            return Err(ProtocolError::TooLarge { length });
        }
        let announced = u32::try_from(length).map_err(|_| ProtocolError::TooLarge { length })?;
        self.frame[..LENGTH_BYTES].copy_from_slice(&announced.to_le_bytes());
        Ok(self.frame)
    }
}

/// Takes one body apart.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the version and gives the kind.
    pub(super) fn new(body: &'a [u8]) -> Result<(Self, u8), ProtocolError> {
        match body {
            [VERSION, kind, rest @ ..] => Ok((Self { rest }, *kind)),
            [VERSION] | [] => Err(ProtocolError::Garbled { field: "header" }),
            [found, ..] => Err(ProtocolError::Version { found: *found }),
        }
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ProtocolError> {
        let (value, rest) = self.rest.split_first_chunk::<N>().ok_or(ProtocolError::Garbled { field })?;
        self.rest = rest;
        Ok(*value)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.take(field)?))
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, ProtocolError> {
        Ok(i32::from_le_bytes(self.take(field)?))
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, ProtocolError> {
        match self.take::<1>(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(ProtocolError::Garbled { field }),
        }
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], ProtocolError> {
        let garbled = ProtocolError::Garbled { field };
        let Ok(length) = usize::try_from(self.u64(field)?) else { return Err(garbled) };
        let (value, rest) = self.rest.split_at_checked(length).ok_or(garbled)?;
        self.rest = rest;
        Ok(value)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<OsString, ProtocolError> {
        Ok(OsString::from_vec(self.bytes(field)?.to_vec()))
    }

    pub(super) fn utf8(&mut self, field: &'static str) -> Result<String, ProtocolError> {
        String::from_utf8(self.bytes(field)?.to_vec()).map_err(|_| ProtocolError::Garbled { field })
    }

    pub(super) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, ProtocolError>,
    ) -> Result<Option<T>, ProtocolError> {
        if self.flag(field)? { read(self).map(Some) } else { Ok(None) }
    }

    /// Reads a count and that many items. The count is not believed: memory grows with the items that are there.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, ProtocolError>,
    ) -> Result<Vec<T>, ProtocolError> {
        let count = self.u64(field)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// Nothing may be left over.
    pub(super) fn finish(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ProtocolError::Garbled { field: "end" }) }
    }
}
