//! What a container finds inside.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_proto::cri;
use berth_test_cri::client;
use berth_test_cri::node::{Pod, test_pod};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn root_shared_memory_is_the_pods_own() {
    test_pod("shm", 33, SERVER, async |mut pod| {
        let first = pod.start(&pod.script("first", "exec sleep 1000")).await?;
        let second = pod.start(&pod.script("second", "exec sleep 1000")).await?;
        let script = "while read -r line; do case $line in *' /dev/shm '*) echo $line; esac; \
                      done </proc/mounts; ls -ld /dev/shm; echo word >/dev/shm/file";
        let said = output(&mut pod, &first, script).await?;
        for part in [
            "shm /dev/shm tmpfs rw,nosuid,nodev,noexec",
            "size=65536k",
            "drwxrwxrwt",
        ] {
            ensure!(said.contains(part), "no `{part}` in {said}");
        }
        let said = output(&mut pod, &second, "cat /dev/shm/file").await?;
        ensure!(said == "word\n", "both see one file: {said}");
        ensure!(!Path::new("/dev/shm/file").exists(), "it is not the host's");

        pod.client.stop_pod(&pod.id).await?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let state = pod.node.dir().join("state").display().to_string();
        ensure!(!mounts.contains(&state), "still mounted: {mounts}");
        pod.finish().await
    });
}

#[test]
fn root_with_the_hosts_ipc_namespace_goes_its_shared_memory() {
    test_pod("hipc", 34, SERVER, async |mut pod| {
        let options = cri::NamespaceOption {
            ipc: cri::NamespaceMode::Node.into(),
            ..Default::default()
        };
        let mut config = client::pod("host", &pod.node.logs());
        config.linux = Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(options.clone()),
                ..Default::default()
            }),
            ..Default::default()
        });
        let id = pod.client.run_pod(&config).await?;
        let mut container = pod.script("main", "ls /dev/shm");
        container.linux = Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
            ..Default::default()
        });
        let name = format!("berth-test-{}", std::process::id());
        let file = Path::new("/dev/shm").join(&name);
        std::fs::write(&file, "")?;
        let ran = async {
            let container = pod.client.run(&id, &container, &config).await?;
            pod.client.await_exit(&container, WITHIN).await
        };
        let ran = ran.await;
        std::fs::remove_file(&file)?;
        let log = std::fs::read_to_string(ran?.log_path)?;
        ensure!(log.contains(&name), "not the host's: {log}");
        pod.client.remove_pod(&id).await?;
        pod.finish().await
    });
}

/// Tries to write the programs of the processes $1 and $2, then keeps both open, and tries again when
/// the processes have ended and `/go` is there.
const WRITE_PROGRAMS: &str = "for pid in $1 $2; do (echo x >/proc/$pid/exe); done; \
     exec 3</proc/$1/exe 4</proc/$2/exe; echo held; until [ -e /go ]; do sleep 0.05; done; \
     for fd in 3 4; do (echo x >/proc/self/fd/$fd); done; echo tried";

#[test]
fn root_programs_of_a_pod_are_written_from_no_container() {
    test_pod("prog", 41, SERVER, async |mut pod| {
        let state = pod.node.dir().join("state/pods").join(&pod.id);
        let state = std::fs::read(state.join("monitor.json"))?;
        let state: serde_json::Value = serde_json::from_slice(&state)?;
        let pids = ["monitor_pid", "pause_pid"].map(|key| state[key].to_string());
        let namespaces = cri::NamespaceOption {
            pid: cri::NamespaceMode::Node.into(),
            ..Default::default()
        };
        let mut config = client::pod("host", &pod.node.logs());
        config.linux = Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces.clone()),
                privileged: true,
                ..Default::default()
            }),
            ..Default::default()
        });
        let id = pod.client.run_pod(&config).await?;
        let mut container = pod.script("main", WRITE_PROGRAMS);
        container.command.push("sh".to_owned());
        container.command.extend(pids);
        container.linux = Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces),
                privileged: true,
                ..Default::default()
            }),
            ..Default::default()
        });
        let main = pod.client.run(&id, &container, &config).await?;
        let log = pod.client.status(&main).await?.log_path;
        let start = std::time::Instant::now();
        while !std::fs::read_to_string(&log)?.contains("held") {
            ensure!(
                start.elapsed() < WITHIN,
                "{}",
                std::fs::read_to_string(&log)?
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pod.client.remove_pod(&pod.id).await?;
        pod.client.exec(&main, &["touch", "/go"], 5).await?;
        pod.client.await_exit(&main, WITHIN).await?;
        let said = std::fs::read_to_string(&log)?;
        let refused = said.matches("Read-only file system").count();
        ensure!(refused == 4 && said.contains("tried"), "{refused}: {said}");
        pod.client.remove_pod(&id).await?;
        pod.finish().await
    });
}

/// A program for i386 that writes `i386` and exits with the error number of keyctl(9999).
const I386: [u8; 50] = [
    0xb8, 4, 0, 0, 0, // mov eax, write
    0xbb, 1, 0, 0, 0, // mov ebx, 1
    0xb9, 0x81, 0x80, 4, 8, // mov ecx, the text behind the code
    0xba, 5, 0, 0, 0, // mov edx, 5
    0xcd, 0x80, // int 0x80
    0xb8, 0x20, 1, 0, 0, // mov eax, keyctl
    0xbb, 0x0f, 0x27, 0, 0, // mov ebx, 9999
    0xcd, 0x80, // int 0x80
    0xf7, 0xd8, // neg eax
    0x89, 0xc3, // mov ebx, eax
    0xb8, 1, 0, 0, 0, // mov eax, exit
    0xcd, 0x80, // int 0x80
    b'i', b'3', b'8', b'6', b'\n',
];

/// A program for x86-64 that exits with the error number of keyctl(9999) by the x32 ABI.
const X32: [u8; 23] = [
    0xb8, 0xfa, 0, 0, 0x40, // mov eax, keyctl | __X32_SYSCALL_BIT
    0xbf, 0x0f, 0x27, 0, 0, // mov edi, 9999
    0x0f, 0x05, // syscall
    0xf7, 0xd8, // neg eax
    0x89, 0xc7, // mov edi, eax
    0xb8, 0x3c, 0, 0, 0, // mov eax, exit
    0x0f, 0x05, // syscall
];

const EPERM: i32 = 1;

#[test]
fn root_the_default_profile_holds_for_every_abi_of_the_machine() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: other ABIs are those of x86");
        return;
    }
    test_pod("abis", 35, SERVER, async |mut pod| {
        let folder = pod.node.dir().join("abi");
        std::fs::create_dir_all(&folder)?;
        for (name, program) in [("i386", elf32(&I386)), ("x32", elf64(&X32))] {
            let file = folder.join(name);
            std::fs::write(&file, program)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        }
        if let Err(error) = std::process::Command::new(folder.join("i386")).output() {
            println!("skipped: the kernel runs no i386 programs: {error}");
            return pod.finish().await;
        }
        for name in ["i386", "x32"] {
            let confined = cri::security_profile::ProfileType::RuntimeDefault;
            let (code, log) = run_abi(&mut pod, &folder, name, confined).await?;
            ensure!(code == EPERM, "{name}: keyctl is not allowed: {code}");
            ensure!(name != "i386" || log.contains(" stdout F i386"), "{log}");
            let free = cri::security_profile::ProfileType::Unconfined;
            let (code, _) = run_abi(&mut pod, &folder, name, free).await?;
            ensure!(code > EPERM, "{name}: that was not the profile: {code}");
        }
        pod.finish().await
    });
}

/// Runs the program `name` of `folder` in a container; its exit code and its log.
async fn run_abi(
    pod: &mut Pod,
    folder: &Path,
    name: &str,
    profile: cri::security_profile::ProfileType,
) -> Result<(i32, String)> {
    let label = format!("{name}-{}", profile.as_str_name().to_lowercase());
    let program = format!("/abi/{name}");
    let mut container = client::container(&label, &pod.image, &[&program]);
    container.mounts.push(cri::Mount {
        container_path: "/abi".to_owned(),
        host_path: folder.display().to_string(),
        readonly: true,
        ..Default::default()
    });
    container.linux = Some(cri::LinuxContainerConfig {
        security_context: Some(cri::LinuxContainerSecurityContext {
            seccomp: Some(cri::SecurityProfile {
                profile_type: profile.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let id = pod.start(&container).await?;
    let ended = pod.client.await_exit(&id, WITHIN).await?;
    Ok((ended.exit_code, pod.log(&label)))
}

/// A static i386 program of `code`: one segment at 0x08048000 with the headers (elf(5)).
fn elf32(code: &[u8]) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    file.extend([2, 0, 3, 0]); // ET_EXEC, EM_386
    for value in [1, BASE + HEADERS, 52, 0, 0] {
        word(&mut file, value);
    }
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let size = HEADERS + u32::try_from(code.len()).unwrap_or(0);
    for value in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        word(&mut file, value);
    }
    file.extend(code);
    file
}

/// A static x86-64 program of `code`: one segment at 0x400000 with the headers (elf(5)).
fn elf64(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64
    for value in [BASE + HEADERS, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, readable and executable
    let size = HEADERS + code.len() as u64;
    for value in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(code);
    file
}

/// What a shell in the container prints.
async fn output(pod: &mut Pod, container: &str, script: &str) -> Result<String> {
    let ran = pod.client.exec(container, &["sh", "-c", script], 5).await?;
    ensure!(ran.exit_code == 0, "{ran:?}");
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}
