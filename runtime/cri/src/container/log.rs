//! The file that a container's output is written to.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::record::{self, RecordError};

/// Makes the file at `path` and its folder, where they are missing, which takes as long as the disk
/// needs. What is there stays as it is: the monitor opens it, and judges what it is.
pub fn make(path: &Path) -> Result<(), RecordError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(record::io("make", folder))?;
    }
    // Exclusive, thus without following a link that somebody else has put there.
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o640).open(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(record::io("make", path)(error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
