//! OOM kills, as the kernel counts them in a cgroup's memory.events (cgroup-v2.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use crate::reactor::{Interest, Reactor, Token, Watched};

/// An open memory.events. It can be read until the cgroup is removed, also when all processes are gone.
#[derive(Debug)]
pub struct OomWatch {
    events: Watched<File>,
    seen: u64,
}

impl OomWatch {
    /// Watches the cgroup at the absolute path `cgroup`; `None` where it has no memory controller.
    pub fn open(reactor: &Rc<Reactor>, cgroup: &Path, container: u32) -> Option<Self> {
        let events = File::open(cgroup.join("memory.events")).ok()?;
        let mut events = Watched::new(reactor, events, Token::Memory(container));
        events.want(Some(Interest::Priority)).ok()?;
        let mut watch = Self { events, seen: 0 };
        // The first read arms the notification (kernfs reports changes since the last read).
        watch.seen = watch.kills()?;
        Some(watch)
    }

    /// OOM kills in the cgroup and below since it was made; `None` once the cgroup is gone.
    pub fn kills(&self) -> Option<u64> {
        let mut text = [0u8; 256];
        let length = self.events.get().read_at(&mut text, 0).ok()?;
        parse_kills(std::str::from_utf8(&text[..length]).ok()?)
    }

    /// True when there were kills since the last call. Ends the watch when the cgroup is gone.
    pub fn changed(&mut self) -> bool {
        let Some(kills) = self.kills() else {
            // A removed file would be reported as ready for ever.
            let _ = self.events.want(None);
            return false;
        };
        kills > std::mem::replace(&mut self.seen, kills)
    }
}

fn parse_kills(text: &str) -> Option<u64> {
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_its_neighbours() {
        let text = "low 0\nhigh 3\nmax 41\noom 2\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(parse_kills(text), Some(2));
        assert_eq!(parse_kills("low 0\noom 7\n"), None);
        assert_eq!(parse_kills("oom_kill x\n"), None);
    }
}
