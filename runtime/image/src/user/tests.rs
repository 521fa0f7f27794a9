use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n\
    web:x:1000:1001:Web:/srv/web:/bin/sh\n\
    1root:x:7:7::/:/bin/sh\n\
    wrap:x:4294967296:0::/:/bin/sh\n\
    short:x\n\
    \n\
    zeros:x:000:0::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\n\
    adm:x:4:web,daemon\n\
    www:x:33:other,web\n\
    web:x:1001:\n\
    again:x:33:web\n\
    bad:x:-1:\n";

fn lookup(text: &str) -> Result<ResolvedUser, String> {
    let spec = UserSpec::parse(text).map_err(|e| e.to_string())?;
    resolve(&spec, Some(PASSWD.as_bytes()), Some(GROUP.as_bytes()), 4096).map_err(|e| e.to_string())
}

#[test]
fn users_resolve_by_name_and_number() {
    for (text, uid, gid, groups, name) in [
        ("", 0, 0, &[][..], Some("root")),
        ("0", 0, 0, &[], Some("root")),
        ("root", 0, 0, &[], Some("root")),
        ("1", 1, 1, &[4], Some("daemon")),
        ("1:1", 1, 1, &[4], Some("daemon")),
        ("web", 1000, 1001, &[4, 33], Some("web")),
        ("1000", 1000, 1001, &[4, 33], Some("web")),
        ("web:www", 1000, 33, &[4], Some("web")),
        ("web:0", 1000, 0, &[4, 33], Some("web")),
        ("65532", 65532, 0, &[], None),
        ("65532:65532", 65532, 65532, &[], None),
        ("2147483647", 2_147_483_647, 0, &[], None),
        ("1root", 7, 7, &[], Some("1root")),
    ] {
        let user = lookup(text).unwrap();
        assert_eq!(
            (user.uid, user.gid, &user.groups[..]),
            (uid, gid, groups),
            "{text}"
        );
        assert_eq!(user.name.as_deref(), name, "{text}");
    }
}

#[test]
fn nothing_becomes_root_by_a_parse_error() {
    for text in [
        "4294967296",
        "2147483648",
        "-1",
        "+1",
        "+0",
        "-0",
        " 1",
        "1 ",
        "0x0",
        "000",
        "00",
        "0x1",
        "1:4294967296",
        "1:-1",
        "1:",
        ":0",
        ":",
        "web:bad",
        "nobody",
        "web:nogroup",
        "wrap",
        "zeros",
        "short",
        "root\n",
        "ro ot",
        "a:b:c",
        "٠",
        "1\0",
    ] {
        assert!(lookup(text).is_err(), "{text:?} gave {:?}", lookup(text));
    }
}

#[test]
fn files_are_bounded() {
    let endless = || io::repeat(b'x');
    let spec = UserSpec::uid(1);
    let result = resolve(&spec, Some(endless()), None::<&[u8]>, 4 << 20);
    assert!(matches!(
        result,
        Err(UserError::TooLarge {
            file: "/etc/passwd",
            ..
        })
    ));
    let spec = UserSpec::parse("1:wheel").unwrap();
    let result = resolve(&spec, None::<&[u8]>, Some(endless()), 4 << 20);
    assert!(matches!(
        result,
        Err(UserError::TooLarge {
            file: "/etc/group",
            ..
        })
    ));
    let many: String = (0..66_000)
        .map(|gid| format!("g{gid}:x:{gid}:root\n"))
        .collect();
    let result = resolve(
        &UserSpec::uid(0),
        Some(PASSWD.as_bytes()),
        Some(many.as_bytes()),
        4 << 20,
    );
    assert!(matches!(result, Err(UserError::TooManyGroups)));
}

proptest::proptest! {
    #[test]
    fn zero_comes_only_from_zero(text in "[-+ 0-9x:]{0,12}") {
        if let Ok(UserSpec { user: Principal::Id(0), .. }) = UserSpec::parse(&text) {
            let user = text.split(':').next().unwrap();
            proptest::prop_assert!(text.is_empty() || user == "0");
        }
    }

    #[test]
    fn a_number_parses_to_itself(uid in 0u64..8_589_934_592) {
        match UserSpec::parse(&uid.to_string()) {
            Ok(spec) => proptest::prop_assert_eq!(spec.user, Principal::Id(u32::try_from(uid).unwrap())),
            Err(_) => proptest::prop_assert!(uid > u64::from(MAX_ID)),
        }
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}") {
        let _ = UserSpec::parse(&text);
    }
}
