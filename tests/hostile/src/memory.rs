//! The resident memory of this process, as Linux reports it.

/// A mebibyte.
pub(crate) const MIB: u64 = 1024 * 1024;

/// The resident memory of this process over a time, in bytes.
pub(crate) struct Memory {
    pub(crate) before: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// Starts to measure.
    ///
    /// # Errors
    ///
    /// Returns an error if the system does not report the memory of a process.
    pub(crate) fn start() -> Result<Self, String> {
        let before = resident()?;
        Ok(Self { before, peak: before })
    }

    /// Takes a sample, and returns it.
    pub(crate) fn sample(&mut self) -> Result<u64, String> {
        let now = resident()?;
        self.peak = self.peak.max(now);
        Ok(now)
    }
}

fn resident() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read the memory of this process: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| "/proc/self/status has no VmRSS in kB".to_owned())
}
