//! Removes images that nobody uses when their file system fills up.
//!
//! Over 85 % in use, images go, the least recently used first, until 80 % are (the stock
//! kubelet's imageGCHighThresholdPercent and imageGCLowThresholdPercent).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cri::{Cri, CriError};
use crate::eviction::signals::{Left, filesystem};

/// Use in percent from which on images are removed.
const HIGH: u64 = 85;
/// Use in percent down to which they are.
const LOW: u64 = 80;
/// An image seen for less than this is kept (imageMinimumGCAge).
const MIN_AGE: Duration = Duration::from_secs(2 * 60);

/// What the node's images were last used for.
#[derive(Debug)]
pub struct ImageGc {
    cri: Cri,
    known: HashMap<String, Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    first_seen: Instant,
    last_used: Option<Instant>,
    in_use: bool,
    pinned: bool,
    size: u64,
}

/// What came of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// Nothing was to be done, or it was done.
    Enough,
    /// Fewer bytes could be freed than were wanted.
    TooLittle { wanted: u64, freed: u64 },
}

/// Why images could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The runtime does not say what there is or does not remove it.
    #[error("cannot collect images")]
    Cri(#[source] CriError),
    /// The file system cannot be looked at.
    #[error("cannot read the use of the images' file system")]
    Filesystem(#[source] std::io::Error),
}

impl ImageGc {
    /// A collector that knows of no image yet.
    #[must_use]
    pub fn new(cri: Cri) -> ImageGc {
        ImageGc {
            cri,
            known: HashMap::new(),
        }
    }

    /// Takes note of which images are there and used; what cannot be seen now is later.
    pub async fn look(&mut self) {
        if let Err(error) = self.observe(Instant::now()).await {
            tracing::debug!(error = crate::chain::chain(&error), "images not looked at");
        }
    }

    /// Removes images when their file system at `path` is over the high mark; with `all`
    /// (the node is short of disk) every unused one, whatever the marks.
    ///
    /// # Errors
    /// When the runtime or the file system cannot be asked.
    pub async fn collect(&mut self, path: &Path, all: bool) -> Result<Collected, GcError> {
        self.observe(Instant::now()).await.map_err(GcError::Cri)?;
        let left = filesystem(path).map_err(GcError::Filesystem)?.bytes;
        let wanted = match all {
            true => u64::MAX,
            false => to_free(left),
        };
        let mut freed = 0;
        let mut failed = None;
        for (id, size) in removable(&self.known, Instant::now()) {
            if freed >= wanted {
                break;
            }
            match self.cri.remove_image(&id).await {
                Ok(()) => {
                    tracing::info!(image = id, bytes = size, "an unused image was removed");
                    self.known.remove(&id);
                    freed += size;
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if freed < wanted => Err(GcError::Cri(error)),
            _ if !all && freed < wanted => Ok(Collected::TooLittle { wanted, freed }),
            _ => Ok(Collected::Enough),
        }
    }

    async fn observe(&mut self, now: Instant) -> Result<(), CriError> {
        let images = self.cri.list_images().await?;
        let containers = self.cri.list_containers(HashMap::new()).await?;
        // A container names its image by id, by digest or as the pod does.
        let used: HashSet<String> = containers
            .into_iter()
            .flat_map(|c| [c.image_id, c.image_ref, c.image.unwrap_or_default().image])
            .filter(|name| !name.is_empty())
            .collect();
        let mut known = HashMap::new();
        for image in images {
            let names = image.repo_tags.iter().chain(&image.repo_digests);
            let in_use = names.chain([&image.id]).any(|name| used.contains(name));
            let before = self.known.get(&image.id);
            let seen = Known {
                first_seen: before.map_or(now, |b| b.first_seen),
                last_used: match in_use {
                    true => Some(now),
                    false => before.and_then(|b| b.last_used),
                },
                in_use,
                pinned: image.pinned,
                size: image.size,
            };
            known.insert(image.id, seen);
        }
        self.known = known;
        Ok(())
    }
}

/// Bytes to free to come from above the high mark down to the low one.
fn to_free(left: Left) -> u64 {
    let used = left.capacity.saturating_sub(left.available);
    let percent = |of: u64| left.capacity / 100 * of;
    match used > percent(HIGH) {
        true => used - percent(LOW),
        false => 0,
    }
}

/// Ids and sizes of what may go, the least recently used first, never used ones before.
fn removable(known: &HashMap<String, Known>, now: Instant) -> Vec<(String, u64)> {
    let mut found: Vec<(&String, &Known)> = known
        .iter()
        .filter(|(_, k)| !k.in_use && !k.pinned && now.duration_since(k.first_seen) >= MIN_AGE)
        .collect();
    found.sort_by_key(|(id, k)| (k.last_used, k.first_seen, *id));
    let pair = |(id, k): (&String, &Known)| (id.clone(), k.size);
    found.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        for (available, expected) in [(200, 0), (150, 0), (149, 51), (0, 200)] {
            let left = Left {
                available,
                capacity: 1000,
            };
            assert_eq!(to_free(left), expected, "{available}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let image = |first, used: Option<u64>, in_use, pinned| Known {
            first_seen: at(first),
            last_used: used.map(at),
            in_use,
            pinned,
            size: 1,
        };
        let known = HashMap::from([
            ("late".to_owned(), image(0, Some(90), false, false)),
            ("early".to_owned(), image(0, Some(10), false, false)),
            ("never".to_owned(), image(50, None, false, false)),
            ("used".to_owned(), image(0, Some(100), true, false)),
            ("pinned".to_owned(), image(0, None, false, true)),
            ("young".to_owned(), image(100, None, false, false)),
        ]);
        let gone: Vec<String> = removable(&known, at(200))
            .into_iter()
            .map(|p| p.0)
            .collect();
        assert_eq!(gone, ["never", "early", "late"]);
    }
}
