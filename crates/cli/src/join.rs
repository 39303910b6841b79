//! The lines that make another machine a host: a short shell script to paste, or to pipe into
//! `ssh HOST sh`. They fetch the agent from the control plane and run it only if it has the SHA-256
//! that stands in them; `serverflow-agent install` does the rest.
//!
//! Nothing the control plane says reaches the script as it came: each piece is read into a type, or
//! quoted, before it is put in.

use api::AgentProgram;
use envelope::token::JoinToken;
use ids::HostName;
use reqwest::Url;

use crate::{
    exit::{Failure, Kind},
    limits,
    session_file::is_loopback,
};

const SCRIPT: &str = include_str!("join.sh.template");

/// What the lines are made of.
pub(crate) struct Join<'a> {
    /// What they do to the host, in a few words.
    pub(crate) purpose: &'static str,
    pub(crate) name: &'a HostName,
    /// Where the new machine reaches the control plane.
    pub(crate) url: &'a Url,
    /// The certificates to trust there (PEM), when they are not the system's.
    pub(crate) ca: Option<&'a str>,
    pub(crate) programs: &'a [AgentProgram],
    /// Without a token the machine must be a host already.
    pub(crate) token: Option<&'a str>,
}

impl Join<'_> {
    /// The lines.
    pub(crate) fn lines(&self) -> Result<String, Failure> {
        let programs: Vec<_> = self.programs.iter().filter(|program| is_word(&program.architecture)).collect();
        if programs.is_empty() {
            return Err(Failure::new(Kind::NotWell, NO_PROGRAMS));
        }
        let sums: String = programs.iter().map(|it| format!("  {}) sum={} ;;\n", it.architecture, it.sha256)).collect();
        let architectures: Vec<_> = programs.iter().map(|it| it.architecture.as_str()).collect();
        let (ca, curl_ca, wget_ca) = match self.ca {
            Some(pem) => (
                format!("cat >\"$dir/ca.pem\" <<'CA'\n{}\nCA\n", pem.trim()),
                "--cacert \"$dir/ca.pem\" ",
                "--ca-certificate=\"$dir/ca.pem\" ",
            ),
            None => (String::new(), "", ""),
        };
        let install = match self.token {
            Some(token) => format!("--token-file - <<'TOKEN'\n{}\nTOKEN", checked(token)?),
            // Standard input is the script itself.
            None => "</dev/null".to_owned(),
        };
        let verb = if self.token.is_some() { "enroll" } else { "upgrade" };
        let scheme = if self.url.scheme() == "https" { "--proto '=https' " } else { "" };
        // The leading space keeps the lines out of the history of shells that are set up so.
        let script = format!(" {SCRIPT}")
            .replace("{{purpose}}", &format!("{} {}", self.purpose, self.name))
            .replace("{{again}}", &format!("{verb} {}", self.name))
            .replace("{{sums}}", &sums)
            .replace("{{architectures}}", &architectures.join(", "))
            .replace("{{url}}", &quoted(self.url.as_str().trim_end_matches('/')))
            .replace("{{curl}}", &format!("{scheme}{curl_ca}"))
            .replace("{{wget}}", wget_ca)
            .replace("{{ca}}", &ca)
            .replace("{{install}}", &install);
        Ok(script)
    }

    /// What would keep the lines from working on another machine.
    pub(crate) fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        if is_loopback(self.url) {
            let port = self.url.port_or_known_default().unwrap_or_default();
            caveats.push(format!(
                "the lines fetch the agent from {url}, which is each machine's own loopback. On another machine they work \
                 through `ssh -R {port}:127.0.0.1:{port} root@HOST`, or serve HTTPS and sign in by that address",
                url = self.url.as_str().trim_end_matches('/'),
            ));
        }
        let address = self.token.and_then(|token| JoinToken::parse(token).ok()).map(|token| token.address.clone());
        if let Some(address) = address.filter(|address| {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            Url::parse(&format!("https://{host}/")).is_ok_and(|url| is_loopback(&url))
        }) {
            caveats.push(format!(
                "the agent would dial {address}, the first address of this fleet's root metadata, and that is each machine's \
                 own loopback: only this very machine can join (see `serverflow-control-plane init --agent-address`)"
            ));
        }
        caveats
    }
}

/// The control plane has nothing to install.
pub(crate) const NO_PROGRAMS: &str = "the control plane serves no agent program to new machines, so there are no lines for them: \
    `agent_dir` in its configuration says where it looks for one";

fn is_word(text: &str) -> bool {
    (1..=limits::ARCHITECTURE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A token and nothing else: the lines end where it ends.
fn checked(token: &str) -> Result<&str, Failure> {
    let token = token.trim();
    match JoinToken::parse(token) {
        Ok(_) => Ok(token),
        Err(error) => {
            Err(Failure::new(Kind::NotWell, format!("the control plane answered with something odd: {error}")))
        }
    }
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use ids::{FleetId, Sha256, TokenId};
    use zeroize::Zeroizing;

    use super::*;

    fn token(address: &str) -> String {
        let token = JoinToken {
            fleet: FleetId::from_bytes([1; 16]),
            token: TokenId::from_bytes([2; 16]),
            secret: Zeroizing::new([3; 32]),
            root_sha256: Sha256([4; 32]),
            spki_sha256: Sha256([5; 32]),
            address: address.to_owned(),
        };
        token.to_text().expect("a token").to_string()
    }

    fn program(architecture: &str) -> AgentProgram {
        AgentProgram { architecture: architecture.to_owned(), sha256: Sha256([0xab; 32]), size_bytes: 1 }
    }

    fn lines(url: &str, ca: Option<&str>, programs: &[AgentProgram], token: Option<&str>) -> Result<String, Failure> {
        let url = Url::parse(url).expect("an address");
        let name = "web-1".parse().expect("a name");
        Join { purpose: "Make this machine the host", name: &name, url: &url, ca, programs, token }.lines()
    }

    #[test]
    fn the_lines_fit_one_screen_and_hold_everything() {
        let programs = [program("aarch64"), program("x86_64")];
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let text = lines("https://[2001:db8::7]:8443/x/", Some(ca), &programs, Some(&token("192.0.2.7:7443"))).unwrap();
        expect_test::expect_file!["golden/join.txt"].assert_eq(&text);
        assert!(text.lines().count() < 40);
        assert!(!text.contains("{{"), "every place is filled");
    }

    #[test]
    fn without_a_token_they_upgrade() {
        let text = lines("https://fleet.example.org", None, &[program("x86_64")], None).unwrap();
        assert!(
            text.contains("\n\"$dir/agent\" install </dev/null\nSERVERFLOW\n") && !text.contains("ca.pem"),
            "{text}"
        );
    }

    #[test]
    fn nothing_from_elsewhere_becomes_a_command() {
        let programs = [program("x86_64) rm -rf /;;"), program("")];
        assert!(lines("https://x", None, &programs, None).is_err(), "no such processor");
        for odd in ["sf1.AAAA", "sf1.x\nTOKEN\nrm -rf /", ""] {
            assert!(lines("https://x", None, &[program("x86_64")], Some(odd)).is_err(), "{odd}");
        }
        let text = lines("https://x/it's$(id)", None, &[program("x86_64")], None).unwrap();
        assert!(text.contains(r"url='https://x/it'\''s$(id)'/agents/$sum"), "{text}");
    }

    #[test]
    fn loopback_is_said() {
        let url = Url::parse("http://127.0.0.1:8080/").unwrap();
        let (near, far) = (token("127.0.0.1:7443"), token("control.example.org:7443"));
        let name = "web-1".parse().expect("a name");
        let join = |token| Join { purpose: "", name: &name, url: &url, ca: None, programs: &[], token };
        assert_eq!(join(Some(&near)).caveats().len(), 2);
        let caveats = join(Some(&far)).caveats();
        assert!(caveats.len() == 1 && caveats[0].contains("ssh -R 8080:127.0.0.1:8080"), "{caveats:?}");
    }
}
