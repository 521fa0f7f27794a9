//! AppArmor profiles.

use std::fs;
use std::process::Command;

/// A loaded profile; it is unloaded in the end.
#[derive(Debug)]
pub struct Profile(tempfile::NamedTempFile);

impl Profile {
    /// Loads `text`, which names the profile.
    ///
    /// # Errors
    /// The parser refuses it.
    pub fn load(text: &str) -> anyhow::Result<Profile> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, text)?;
        let profile = Profile(file);
        let loaded = profile.parser("--add")?;
        let said = String::from_utf8_lossy(&loaded.stderr);
        anyhow::ensure!(loaded.status.success(), "the profile does not load: {said}");
        Ok(profile)
    }

    fn parser(&self, verb: &str) -> std::io::Result<std::process::Output> {
        let mut command = Command::new("apparmor_parser");
        command
            .args([verb, "--skip-cache"])
            .arg(self.0.path())
            .output()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = self.parser("--remove");
    }
}
