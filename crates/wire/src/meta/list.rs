//! A list inside a meta: the bytes of a payload that has been checked, or an author's slice.

use core::fmt;

use super::MetaError;
use crate::reader::Reader;

/// Items borrowed from a decoded payload or from a slice; iterate to read them.
///
/// ```
/// use cabinet_wire::{meta::List, Text};
/// let tags = [Text::new("cards"), Text::new("solo")];
/// let list = List::from(&tags[..]);
/// assert_eq!(list.len(), 2);
/// assert!(list.iter().eq(tags));
/// ```
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    repr: Repr<'a, T>,
}

#[derive(Clone, Copy)]
enum Repr<'a, T> {
    /// `count` complete items.
    Payload {
        count: u16,
        items: Reader<'a>,
    },
    Slice(&'a [T]),
}

/// What a list can hold. Sealed: the crate does not export it.
pub trait Item<'a>: Copy {
    /// Reads one; `index` is for the error.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn read(reader: &mut Reader<'a>, index: usize) -> Result<Self, MetaError>;
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// Reads a count and every item once, so that iterating cannot fail.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, MetaError> {
        let count = reader.u16()?;
        let start = *reader;
        for index in 0..usize::from(count) {
            T::read(reader, index)?;
        }
        let items = Reader::new(reader.since(start));
        Ok(Self {
            repr: Repr::Payload { count, items },
        })
    }

    /// The items, in order.
    #[must_use]
    pub const fn iter(&self) -> ListIter<'a, T> {
        ListIter { rest: *self }
    }
}

impl<T> List<'_, T> {
    /// How many items there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.repr {
            Repr::Payload { count, .. } => count as usize,
            Repr::Slice(items) => items.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T> List<'a, T> {
    /// The list of a slice's items, in a `const` too.
    #[must_use]
    pub const fn new(items: &'a [T]) -> Self {
        Self {
            repr: Repr::Slice(items),
        }
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self::new(items)
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;
    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

/// Iterates a [`List`], allocating nothing.
#[derive(Clone, Copy)]
pub struct ListIter<'a, T> {
    rest: List<'a, T>,
}

impl<'a, T: Item<'a>> Iterator for ListIter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.rest.repr {
            Repr::Payload { count, items } => {
                *count = count.checked_sub(1)?;
                // `List::read` has read every item once, so this one is complete.
                T::read(items, 0).ok()
            }
            Repr::Slice(items) => {
                let (first, rest) = items.split_first()?;
                *items = rest;
                Some(*first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.rest.len(), Some(self.rest.len()))
    }
}

impl<'a, T: Item<'a>> ExactSizeIterator for ListIter<'a, T> {}
