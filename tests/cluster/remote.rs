//! A VM driven from the host: commands in nodes, programs that stay, and the way back to the host.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::lab::remote::{Boot, Vm};
use crate::poll::eventually;

#[test]
#[ignore = "needs the lab VM: make test-cluster"]
fn a_test_on_the_host_drives_a_cluster_in_the_vm() {
    let vm = Vm::boot(&Boot::default());

    vm.put("/etc/weir/greeting", "from the host");
    assert_eq!(vm.sh("rs1", "cat /etc/weir/greeting"), "from the host");
    assert_eq!(vm.run(None, &["sh", "-c", "echo no >&2; exit 3"]).status, 3);

    let server = vm.start(Some("rs1"), &["lab", "serve", "rs1", "80"]);
    eventually(Duration::from_secs(10), "the client is answered", || {
        vm.run(Some("client"), &["lab", "client", "10.0.0.11:80"])
            .stdout
            .contains("9  rs1")
            .then_some(())
    });
    assert_eq!(server.ended(), None);
    server.signal(rustix::process::Signal::KILL);
    eventually(Duration::from_secs(5), "the server is gone", || server.ended());
}

#[test]
#[ignore = "needs the lab VM: make test-cluster"]
fn nodes_in_the_vm_reach_a_server_on_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.unwrap().write_all(b"the host\n");
        }
    });
    let vm = Vm::boot(&Boot::default());
    for node in ["d1", "d2", "rs1", "rs2", "rs3", "client"] {
        assert_eq!(
            vm.sh(node, &format!("nc 10.0.2.2 {port} </dev/null")),
            "the host\n",
            "{node}"
        );
    }
}
