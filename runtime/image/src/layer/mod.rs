//! Unpacking a layer: decompress, read the archive, apply it inside one directory.

pub(crate) mod ahead;
pub(crate) mod apply;
pub(crate) mod archive;
pub(crate) mod decompress;
pub(crate) mod merged;
pub(crate) mod tree;
pub(crate) mod unpack;
pub(crate) mod whiteout;

pub use apply::ApplyError;
pub use archive::ArchiveError;
pub use unpack::UnpackError;
