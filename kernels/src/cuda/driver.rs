//! A device of this machine, through its driver, which is found at run time.

use std::collections::HashMap;
use std::ffi::CString;

use cudarc::driver::{DriverError, result, sys};

use super::device::{Address, Argument, Device, Fault, Shape};
use super::sources::SOURCES;

/// The oldest processors that the kernels are compiled for.
const CAPABILITY_MIN: i32 = 80;

/// The first device of this machine. Used on the thread that opened it, and there alone.
pub(super) struct Driver {
    device: sys::CUdevice,
    stream: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    name: String,
}

fn checked<T>(what: &'static str, outcome: Result<T, DriverError>) -> Result<T, Fault> {
    outcome.map_err(|error| Fault {
        what,
        reason: format!("{:?}", error.0),
        is_lost: error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY,
    })
}

fn none(reason: &str) -> Fault {
    Fault { what: "open a device", reason: reason.to_owned(), is_lost: true }
}

impl Driver {
    /// Finds the driver, takes the first device and loads the kernels.
    pub(super) fn open() -> Result<Self, Fault> {
        // SAFETY: loading the driver's library runs its initialisers; it is the driver of this machine.
        if !unsafe { sys::is_culib_present() } {
            return Err(none("no CUDA driver is installed"));
        }
        checked("start the driver", result::init())?;
        if checked("count devices", result::device::get_count())? == 0 {
            return Err(none("there is no device"));
        }
        let device = checked("take a device", result::device::get(0))?;
        let name = checked("name a device", result::device::get_name(device))?;
        // SAFETY: `device` was given by the driver.
        let capability = unsafe {
            let attribute = |which| checked("ask a device", result::device::get_attribute(device, which));
            10 * attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
                + attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?
        };
        if capability < CAPABILITY_MIN {
            return Err(none(&format!("`{name}` is sm_{capability}; the kernels need sm_{CAPABILITY_MIN}")));
        }
        // SAFETY: as above; the context is released when `Self` is dropped.
        let context = checked("make a context", unsafe { result::primary_ctx::retain(device) })?;
        let mut driver =
            Self { device, stream: std::ptr::null_mut(), modules: Vec::new(), functions: HashMap::new(), name };
        // SAFETY: the context was just made, and lives as long as `Self`.
        checked("enter a context", unsafe { result::ctx::set_current(context) })?;
        driver.stream = checked("make a stream", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        driver.load()?;
        Ok(driver)
    }

    fn load(&mut self) -> Result<(), Fault> {
        for source in SOURCES {
            let text = CString::new(source.ptx).expect("PTX has no zero byte");
            // SAFETY: the driver takes PTX as text that ends with a zero byte.
            let module = checked("load kernels", unsafe { result::module::load_data(text.as_ptr().cast()) })?;
            self.modules.push(module);
            for kernel in source.kernels {
                let name = CString::new(*kernel).expect("a name has no zero byte");
                // SAFETY: the module was loaded above and is unloaded when `Self` is dropped.
                let function = checked("find a kernel", unsafe { result::module::get_function(module, name) })?;
                self.functions.insert(kernel, function);
            }
        }
        Ok(())
    }

    /// What the device calls itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Driver {
    /// Errors are left alone: of a lost device everything is refused, and nothing is left to be done about it.
    fn drop(&mut self) {
        // SAFETY: all of these were made by `open`, in this context, and are used by nobody else.
        unsafe {
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::stream::destroy(self.stream);
            }
            for module in self.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Device for Driver {
    fn allocate(&mut self, bytes: usize) -> Result<Address, Fault> {
        // SAFETY: the context is current on this thread.
        checked("allocate", unsafe { result::malloc_sync(bytes) }).map(Address)
    }

    fn free(&mut self, address: Address) -> Result<(), Fault> {
        // SAFETY: the engine gives back what `allocate` gave, once; freeing waits for what still uses it.
        checked("free memory", unsafe { result::free_sync(address.0) })
    }

    fn zero(&mut self, address: Address, bytes: usize) -> Result<(), Fault> {
        // SAFETY: the engine zeroes no more than it allocated.
        checked("clear memory", unsafe { result::memset_d8_async(address.0, 0, bytes, self.stream) })
    }

    fn upload(&mut self, bytes: &[u8], to: Address) -> Result<(), Fault> {
        // SAFETY: the engine uploads no more than it allocated. From memory that is not pinned the driver has copied
        // everything when it returns.
        checked("copy to the device", unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) })
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), Fault> {
        // SAFETY: the engine downloads no more than it allocated; the copy is over before `bytes` is given back.
        unsafe {
            checked("copy from the device", result::memcpy_dtoh_async(bytes, from.0, self.stream))?;
            checked("wait for the device", result::stream::synchronize(self.stream))
        }
    }

    fn launch(&mut self, kernel: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<(), Fault> {
        let function = *self.functions.get(kernel).unwrap_or_else(|| panic!("`{kernel}` is not among the sources"));
        let mut places: Vec<_> = arguments.iter_mut().map(Argument::place).collect();
        let blocks = (shape.blocks[0], shape.blocks[1], 1);
        // SAFETY: the engine gives each kernel the arguments that its source names; the parity suite runs every one.
        checked("launch a kernel", unsafe {
            result::launch_kernel(function, blocks, (shape.threads, 1, 1), 0, self.stream, &mut places)
        })
    }
}
