//! Compile-time proofs of the ABI. `bytemuck::Pod` proves that a type has no padding and no invalid bit
//! patterns; [`layout!`] adds its size and the offset of each field, so that a change of layout cannot go
//! unnoticed in review.

/// Proves the size of a type and the offsets of its fields.
macro_rules! layout {
    ($ty:ty, size = $size:expr, $($field:ident @ $offset:expr),+ $(,)?) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!($size % align_of::<$ty>() == 0);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)+
        };
    };
}
pub(crate) use layout;
