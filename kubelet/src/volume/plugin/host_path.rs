//! hostPath: a path of the host, checked against its `type`.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::volume::SetUpError;
use crate::volume::actual::IoStep;

/// Checks the path, or makes what `type` says is to be made.
///
/// # Errors
/// When the path is not what `type` demands, or cannot be made.
pub fn check(source: &HostPathVolumeSource) -> Result<(), SetUpError> {
    let path = Path::new(&source.path);
    // Links on the way are the host's own, and followed as everywhere on the host.
    let seen = std::fs::metadata(path).ok().map(|found| found.file_type());
    let demand = |kind, fits: bool| {
        let path = path.to_path_buf();
        fits.then_some(())
            .ok_or(SetUpError::HostPathType { path, kind })
    };
    match source.type_.as_deref().unwrap_or_default() {
        // No check; as with other runtimes, what is not there becomes a directory.
        "" if seen.is_some() => Ok(()),
        "" => make_dir(path),
        "DirectoryOrCreate" if seen.is_none() => make_dir(path),
        "FileOrCreate" if seen.is_none() => make_file(path),
        "DirectoryOrCreate" | "Directory" => demand("directory", seen.is_some_and(|k| k.is_dir())),
        "FileOrCreate" | "File" => demand("file", seen.is_some_and(|k| k.is_file())),
        "Socket" => demand("socket file", seen.is_some_and(|k| k.is_socket())),
        "CharDevice" => demand("character device", seen.is_some_and(|k| k.is_char_device())),
        "BlockDevice" => demand("block device", seen.is_some_and(|k| k.is_block_device())),
        other => Err(SetUpError::UnknownHostPathType(other.to_owned())),
    }
}

fn make_dir(path: &Path) -> Result<(), SetUpError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    Ok(made.map_err(IoStep::on("make", path))?)
}

fn make_file(path: &Path) -> Result<(), SetUpError> {
    let mut open = File::options();
    let made = open.write(true).create_new(true).mode(0o644).open(path);
    Ok(made.map(drop).map_err(IoStep::on("make", path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(at("dir")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind, ok) in [
            (at("dir"), "Directory", true),
            (at("file"), "Directory", false),
            (at("none"), "Directory", false),
            (at("file"), "File", true),
            (at("dir"), "File", false),
            (at("socket"), "Socket", true),
            (at("file"), "Socket", false),
            ("/dev/null".into(), "CharDevice", true),
            ("/dev/null".into(), "BlockDevice", false),
            (at("new/dir"), "DirectoryOrCreate", true),
            (at("new/dir"), "Directory", true),
            (at("new/file"), "FileOrCreate", true),
            (at("new/file"), "File", true),
            (at("none/file"), "FileOrCreate", false),
            (at("file"), "DirectoryOrCreate", false),
            (at("unchecked"), "", true),
            (at("unchecked"), "Directory", true),
            (at("file"), "Pipe", false),
        ] {
            let source = HostPathVolumeSource {
                path: path.clone(),
                type_: Some(kind.into()),
            };
            assert_eq!(check(&source).is_ok(), ok, "{path} {kind}");
        }
    }
}
