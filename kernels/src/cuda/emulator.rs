//! A device that is none: the sources of the kernels, compiled as C++ and run on the CPU, thread by thread.
//!
//! It holds the arithmetic of the kernels against the CPU backend where there is no device. See `emulate.h`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use libloading::Library;

use super::device::{Address, Argument, Device, Fault, Shape};
use super::sources::SOURCES;

/// Written behind each piece of memory and looked for when it is given back.
const CANARY: u64 = 0x5afe_5afe_5afe_5afe;
const CANARIES: usize = 16;

type Kernel = unsafe extern "C" fn(*const u32, *mut *mut std::ffi::c_void);

/// The compiled kernels; none where the machine has no C++ compiler. One thread at a time: blocks share their memory.
fn kernels() -> Option<MutexGuard<'static, HashMap<&'static str, Kernel>>> {
    static KERNELS: OnceLock<Option<Mutex<HashMap<&'static str, Kernel>>>> = OnceLock::new();
    let kernels = KERNELS.get_or_init(|| compile().map(Mutex::new)).as_ref()?;
    Some(kernels.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn compile() -> Option<HashMap<&'static str, Kernel>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda"));
    let out = std::env::temp_dir().join(format!("trainwarden-emulation-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("the temporary folder takes a folder");
    let mut kernels = HashMap::new();
    for source in SOURCES {
        let exports: String = source.kernels.iter().map(|kernel| format!("EMULATED({kernel})\n")).collect();
        let text = format!("#include \"emulate.h\"\n#include \"{}.cu\"\n{exports}", source.name);
        let (file, library) = (out.join(format!("{}.cpp", source.name)), out.join(format!("{}.so", source.name)));
        std::fs::write(&file, text).expect("the temporary folder takes a file");
        let mut command = Command::new("c++");
        command.args(["-std=c++17", "-O2", "-ffp-contract=off", "-w", "-shared", "-fPIC", "-I"]).arg(&folder);
        let output = command.arg(&file).arg("-o").arg(&library).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: the library was just made of sources of this folder, which have no initialisers.
        let library = Box::leak(Box::new(unsafe { Library::new(&library) }.expect("what was compiled can be loaded")));
        for kernel in source.kernels {
            let name = format!("emulated_{kernel}");
            // SAFETY: `EMULATED` exports a function of this type; the library is never closed.
            let function = unsafe { library.get::<Kernel>(name.as_bytes()) }.expect("it was exported");
            kernels.insert(*kernel, *function);
        }
    }
    let _ = std::fs::remove_dir_all(&out);
    Some(kernels)
}

/// Memory of this process in the place of a device's.
#[derive(Default)]
pub(super) struct Emulator {
    memory: HashMap<u64, Vec<u64>>,
    /// After so many launches the device is lost.
    pub(super) launches_left: Option<usize>,
}

impl Emulator {
    /// An emulator, where the machine can compile the kernels.
    pub(super) fn open() -> Option<Self> {
        kernels().map(|_| Self::default())
    }

    fn check(&self, address: Address, bytes: usize) {
        let is_inside = |(start, words): (&u64, &Vec<u64>)| {
            address.0 >= *start && address.0 + bytes as u64 <= *start + 8 * (words.len() - CANARIES) as u64
        };
        assert!(self.memory.iter().any(is_inside), "{bytes} bytes at {address:?} are not the device's");
    }
}

impl Device for Emulator {
    fn allocate(&mut self, bytes: usize) -> Result<Address, Fault> {
        let mut words = vec![u64::MAX; bytes.div_ceil(8) + CANARIES];
        let end = words.len() - CANARIES;
        words[end..].fill(CANARY);
        let address = words.as_ptr() as u64;
        self.memory.insert(address, words);
        Ok(Address(address))
    }

    fn free(&mut self, address: Address) -> Result<(), Fault> {
        let words = self.memory.remove(&address.0).expect("what is freed was allocated");
        assert!(words[words.len() - CANARIES..].iter().all(|word| *word == CANARY), "a kernel wrote behind its memory");
        Ok(())
    }

    fn zero(&mut self, address: Address, bytes: usize) -> Result<(), Fault> {
        self.check(address, bytes);
        // SAFETY: the memory is that of one of the vectors, checked above.
        unsafe { std::ptr::write_bytes(address.0 as *mut u8, 0, bytes) };
        Ok(())
    }

    fn upload(&mut self, bytes: &[u8], to: Address) -> Result<(), Fault> {
        self.check(to, bytes.len());
        // SAFETY: the memory is that of one of the vectors, checked above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), Fault> {
        self.check(from, bytes.len());
        // SAFETY: the memory is that of one of the vectors, checked above.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&mut self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), Fault> {
        match &mut self.launches_left {
            Some(0) => {
                return Err(Fault { what: "launch a kernel", reason: "lost on purpose".into(), is_lost: true });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let kernels = kernels().expect("`open` compiled them");
        let function = *kernels.get(kernel).unwrap_or_else(|| panic!("`{kernel}` is not among the sources"));
        let mut places: Vec<_> = arguments.iter_mut().map(Argument::place).collect();
        let shape = [shape.blocks[0], shape.blocks[1], shape.threads];
        assert!(shape[2].is_multiple_of(32) && shape[2] <= 1024, "{shape:?}");
        // SAFETY: the engine gives each kernel the arguments that its source names, with memory of this emulator.
        unsafe { function(shape.as_ptr(), places.as_mut_ptr()) };
        Ok(())
    }
}
