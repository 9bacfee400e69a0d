//! The IPVS module is unloaded under an agent. A file of its own: it needs a kernel in which nobody else uses IPVS.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::lab::netns::Netns;
use crate::poll::within;

const SERVICE: &str = "
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  listeners: [{name: http, protocol: TCP, port: 80}]
";

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_agent_goes_on_when_the_module_comes_back() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let netns = Netns::new("host");
    netns.sh("ip link set lo up");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args([
        "agent",
        "--node-name",
        "host",
        "--audit-interval",
        "1s",
        "--manifests",
    ]);
    command.arg(folder.path()).arg("--state-dir").arg(state.path());
    let agent = netns.spawn(&mut command);
    let table = || netns.sh("ipvsadm -Sn");
    let programmed = || {
        within(Duration::from_secs(30), || {
            table().contains("-A -t 10.0.0.200:80").then_some(())
        })
    };
    fs::write(folder.path().join("web.yaml"), SERVICE).unwrap();
    assert!(programmed().is_some(), "{}", agent.log());

    // A service holds its scheduler's module, and that holds ip_vs.
    fs::remove_file(folder.path().join("web.yaml")).unwrap();
    let gone = within(Duration::from_secs(30), || table().is_empty().then_some(()));
    assert!(gone.is_some(), "{}", agent.log());
    netns.sh("rmmod ip_vs_lblc && rmmod ip_vs_lblcr && rmmod ip_vs_wlc && rmmod ip_vs");

    fs::write(folder.path().join("web.yaml"), SERVICE).unwrap();
    assert!(programmed().is_some(), "{}", agent.log());
}
