//! The open brackets of one element, one bit each.

/// Deepest nesting that is followed: 8 MiB of bits.
const DEEPEST: usize = 1 << 26;

/// A stack of brackets.
#[derive(Debug, Default)]
pub(super) struct Brackets {
    /// 1 for `{`; bits above `depth` mean nothing.
    bits: Vec<u64>,
    depth: usize,
}

impl Brackets {
    pub(super) fn clear(&mut self) {
        self.bits.truncate(1);
        self.depth = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.depth == 0
    }

    /// `false` when it is one too many.
    pub(super) fn open(&mut self, object: bool) -> bool {
        if self.depth == DEEPEST {
            return false;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        true
    }

    /// Whether the innermost bracket is a `{`; `false` when there is none.
    pub(super) fn is_object(&self) -> bool {
        let Some(top) = self.depth.checked_sub(1) else { return false };
        self.bits[top / 64] >> (top % 64) & 1 == 1
    }

    pub(super) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
