//! What a device does for the engine: memory, copies and launches.

/// A place in the memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) u64);

/// A device refused a call.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// What was attempted: "launch a kernel".
    pub(super) what: &'static str,
    /// What the driver said.
    pub(super) reason: String,
    /// Whether the device gives no answer any more. Where it only has no room, other calls may go well.
    pub(super) is_lost: bool,
}

/// One argument of a kernel, by value: numbers in their low bytes, as all machines with such devices keep them.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Argument([u64; 4]);

impl Argument {
    /// Where the value lies.
    pub(super) fn place(&mut self) -> *mut std::ffi::c_void {
        self.0.as_mut_ptr().cast()
    }
}

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        address.0.into()
    }
}

impl From<u64> for Argument {
    fn from(word: u64) -> Self {
        Self([word, 0, 0, 0])
    }
}

impl From<u32> for Argument {
    fn from(word: u32) -> Self {
        u64::from(word).into()
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        number.to_bits().into()
    }
}

impl From<[u64; 4]> for Argument {
    fn from(words: [u64; 4]) -> Self {
        Self(words)
    }
}

/// Size of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Thread blocks, in two directions.
    pub(super) blocks: [u32; 2],
    /// Threads of a block, a multiple of 32.
    pub(super) threads: u32,
}

impl Shape {
    /// Blocks of `threads` threads, one thread for each of `count`.
    pub(super) fn one_each(count: usize, threads: u32) -> Self {
        let blocks = u32::try_from(count.div_ceil(threads as usize)).expect("a call has fewer than 2^38 threads");
        Self { blocks: [blocks, 1], threads }
    }

    /// One block for each of `count`.
    pub(super) fn one_block_each(count: usize, threads: u32) -> Self {
        Self { blocks: [u32::try_from(count).expect("a call has fewer than 2^31 blocks"), 1], threads }
    }
}

/// A device and its one stream: calls take effect in their order. Every call tells whether it went well; an error may
/// belong to an earlier one.
pub(super) trait Device {
    /// Memory of at least `bytes`, aligned to 256, its content unknown.
    fn allocate(&mut self, bytes: usize) -> Result<Address, Fault>;

    /// Gives memory back.
    fn free(&mut self, address: Address) -> Result<(), Fault>;

    /// Sets memory to zero.
    fn zero(&mut self, address: Address, bytes: usize) -> Result<(), Fault>;

    /// Copies to the device; `bytes` may change afterwards.
    fn upload(&mut self, bytes: &[u8], to: Address) -> Result<(), Fault>;

    /// Waits for all that was called before, and copies from the device.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), Fault>;

    /// Starts a kernel of [`super::sources::SOURCES`] with the arguments that its source names, in their order.
    fn launch(&mut self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), Fault>;
}
