//! Bytes kept in pieces of bounded size: many buffers that fill and empty at different times share the same pieces,
//! so that what is in memory is what is in the buffers.

use std::collections::VecDeque;

/// A piece is full at this size; the row that fills it may reach beyond.
const PIECE: usize = 32 << 10;
/// Room for that row.
const SLACK: usize = 2 << 10;
/// Pieces kept for the next buffer.
const MOST_SPARE: usize = 256;

#[derive(Default)]
pub struct Chunks {
    pieces: VecDeque<Vec<u8>>,
}

/// Emptied pieces.
#[derive(Default)]
pub struct Spare(Vec<Vec<u8>>);

impl Chunks {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Counted piece by piece.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Where to append the next row.
    pub fn tail(&mut self, spare: &mut Spare) -> &mut Vec<u8> {
        if self.pieces.back().is_none_or(|piece| piece.len() >= PIECE) {
            let piece = spare.0.pop();
            self.pieces
                .push_back(piece.unwrap_or_else(|| Vec::with_capacity(PIECE + SLACK)));
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    /// The oldest piece.
    pub fn head(&self) -> Option<&[u8]> {
        self.pieces.front().map(Vec::as_slice)
    }

    /// Gives the oldest piece back.
    pub fn drop_head(&mut self, spare: &mut Spare) {
        if let Some(mut piece) = self.pieces.pop_front() {
            if spare.0.len() < MOST_SPARE && piece.capacity() <= 2 * PIECE {
                piece.clear();
                spare.0.push(piece);
            }
        }
    }
}

impl From<Vec<u8>> for Chunks {
    fn from(bytes: Vec<u8>) -> Chunks {
        Chunks {
            pieces: VecDeque::from([bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_filled_and_used_again() {
        let mut spare = Spare::default();
        let mut chunks = Chunks::default();
        assert!(chunks.is_empty());
        for _ in 0..1000 {
            chunks.tail(&mut spare).extend_from_slice(&[b'x'; 100]);
        }
        assert_eq!(chunks.len(), 100_000);
        assert_eq!(chunks.pieces.len(), 4);
        let mut left = 100_000;
        while let Some(head) = chunks.head() {
            left -= head.len();
            assert!(left == 0 || (PIECE..PIECE + 100).contains(&head.len()));
            chunks.drop_head(&mut spare);
        }
        assert_eq!((left, spare.0.len()), (0, 4));
        chunks.tail(&mut spare).push(b'y');
        assert_eq!(chunks.head(), Some(b"y".as_slice()));
        assert_eq!(spare.0.len(), 3);
    }
}
