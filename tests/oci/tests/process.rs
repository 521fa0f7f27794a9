//! What the process of a container is, where and when it runs.

use std::fs;

use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Output};
use serde_json::json;

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: &[Need] = &[Need::Root, Need::CgroupV2, Need::Program("ldd")];

fn line(output: &Output, key: &str) -> anyhow::Result<String> {
    let mut lines = output.stdout.lines();
    let found = lines.find(|line| line.starts_with(key));
    found
        .map(str::to_owned)
        .ok_or_else(|| anyhow::anyhow!("no {key}: {output:?}"))
}

#[test]
fn root_a_process_runs_under_the_policy_it_asks_for() {
    test(NEEDS, || {
        let bundle = Bundle::new(PROBE, &["schedule"])?.with(|spec| {
            spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
            spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 5});
            spec["linux"]["personality"] = json!({"domain": "LINUX32"});
            spec["linux"]["memoryPolicy"] =
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        });
        let told = bundle.run()?.expect_ok()?.stdout;
        for fact in [
            "policy 3 nice 7",
            "priority 0 flags 1",
            "io 3:5",
            "personality 8",
            "memory 32770 [0]",
        ] {
            assert!(told.lines().any(|line| line == fact), "{fact}: {told}");
        }
        let told = Bundle::new(PROBE, &["schedule"])?.run()?.expect_ok()?;
        assert!(line(&told, "policy")?.starts_with("policy 0 "));
        assert_eq!(line(&told, "personality")?, "personality 0");
        Ok(())
    });
}

#[test]
fn root_an_exec_runs_on_its_cpus_and_init_does_not() {
    test(NEEDS, || {
        let all = berth_sys::sched::affinity()?.numbers();
        let (first, last) = (all[0], all[all.len() - 1]);
        let bundle = Bundle::new(PROBE, &["wait"])?.with(|spec| {
            spec["process"]["execCPUAffinity"] =
                json!({"initial": first.to_string(), "final": last.to_string()});
        });
        let container = bundle.container()?;
        container.create()?.expect_ok()?;
        container.call(&["start", "ID"])?.expect_ok()?;
        let told = container
            .call(&["exec", "ID", "/bin/testinit", "schedule"])?
            .expect_ok()?;
        assert_eq!(line(&told, "cpus")?, format!("cpus [{last}]"));
        // Of its own file; without `final` the CPUs of the first moment stay.
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/testinit", "schedule"],
            "execCPUAffinity": {"initial": first.to_string()}});
        fs::write(bundle.folder().join("process.json"), process.to_string())?;
        let told = container
            .call(&["exec", "--process", "process.json", "ID"])?
            .expect_ok()?;
        assert_eq!(line(&told, "cpus")?, format!("cpus [{first}]"));
        let told = Bundle::new(PROBE, &["schedule"])?
            .with(|spec| spec["process"]["execCPUAffinity"] = json!({"final": first.to_string()}))
            .run()?
            .expect_ok()?;
        assert_eq!(line(&told, "cpus")?, format!("cpus {all:?}"));
        Ok(())
    });
}

#[test]
fn root_capabilities_that_nobody_knows_or_the_host_lacks_are_told_and_left_out() {
    test(NEEDS, || {
        let report = Bundle::new(PROBE, &["report"])?
            .with(|spec| {
                for set in ["bounding", "effective", "permitted"] {
                    spec["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_FLY"]);
                }
            })
            .run()?
            .expect_ok()?;
        assert_eq!(report.report()?.status["CapPrm"], "0000000000000020");
        assert!(report.stderr.contains("CAP_FLY"), "{}", report.stderr);
        Ok(())
    });
}

#[test]
fn root_a_profile_without_its_security_module_is_refused() {
    test(NEEDS, || {
        if fs::exists("/sys/module/apparmor/parameters/enabled")? {
            return Ok(()); // the VM's kernel has it: tests of CRI ask for profiles there
        }
        let bundle = Bundle::new(PROBE, &["report"])?
            .with(|spec| spec["process"]["apparmorProfile"] = json!("some-profile"));
        let error = bundle.run()?.expect_failure()?;
        assert!(error.contains("process.apparmorProfile"), "{error}");
        let bundle = bundle.with(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
        bundle.run()?.expect_ok()?;
        Ok(())
    });
}
