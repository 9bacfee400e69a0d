//! What changes the kernel for everybody on the machine. The lab's runner leaves these out unless it is asked for them by name;
//! `make test-kernel` runs them one after the other, in a VM of their own.
//!
//! | module | what |
//! | --- | --- |
//! | `reload` | the module ip_vs goes and comes back |
//! | `without_nftables` | the module nf_tables goes, for good |

mod reload;
mod without_nftables;
