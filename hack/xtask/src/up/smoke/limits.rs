//! Step d, sixth part: limits, where cgroup v2 enforces them.

use anyhow::{Result, ensure};

use super::tour::{Tour, expect};
use super::{Place, Step};

pub const STEPS: &[Step] = &[
    Step {
        name: "memory limit exceeded: OOMKilled, 137",
        place: Place::Limits,
        run: out_of_memory,
    },
    Step {
        name: "the pod's limits stand in its cgroup",
        place: Place::Limits,
        run: limits_stand,
    },
];

fn out_of_memory(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    tour.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hungry}}\nspec:\n  restartPolicy: Never\n  \
         containers:\n  - name: main\n    image: {image}\n    \
         command: [sh, -c, \"head -c 200000000 /dev/zero | tail\"]\n    \
         resources: {{limits: {{memory: 32Mi}}}}\n"
    ))?;
    tour.eventually(30, |tour| {
        let pod = tour.get(&["pod", "hungry"])?;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        ensure!(
            ended["reason"] == "OOMKilled" && ended["exitCode"] == 137,
            "{}",
            pod["status"]
        );
        Ok(())
    })?;
    expect(&tour.run(&["get", "pod", "hungry"])?, "OOMKilled")?;
    tour.run(&["delete", "pod", "hungry", &tour.timeout(30)])
        .map(drop)
}

fn limits_stand(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let text = tour.shell(&pod, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max")?;
    expect(&text, "67108864")?;
    expect(&text, "50000 100000")
}
