//! The engine's end of a container's terminal: a socket that takes its master side.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::Result;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Listens for one terminal, and holds it as long as it lives.
pub(crate) struct Console {
    path: PathBuf,
    taken: Option<JoinHandle<Option<OwnedFd>>>,
}

impl Console {
    /// A socket in `folder`.
    pub(crate) fn listen(folder: &Path) -> Result<Self> {
        let path = folder.join("console");
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        let taken = std::thread::spawn(move || take(&listener));
        Ok(Self {
            path,
            taken: Some(taken),
        })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // where no runtime has connected, the thread still waits for one
        drop(std::os::unix::net::UnixStream::connect(&self.path));
        if let Some(thread) = self.taken.take() {
            drop(thread.join());
        }
    }
}

fn take(listener: &UnixListener) -> Option<OwnedFd> {
    let (stream, _) = listener.accept().ok()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 256];
    let mut parts = [IoSliceMut::new(&mut name)];
    recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}
