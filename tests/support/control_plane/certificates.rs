//! The cluster's certificate authority and the credentials signed by it.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate or public key and its private key, both in PEM.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) public: String,
    pub(crate) private: String,
}

/// The certificate authority that servers and users of one control plane trust.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, with a key of its own.
    pub(crate) fn new() -> Self {
        let mut parameters = named("weir test authority", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer =
            CertifiedIssuer::self_signed(parameters, new_key()).expect("the parameters are complete");
        Self { issuer }
    }

    /// The authority's own certificate in PEM.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// What a server on this machine's loopback shows. `localhost` is the name that clients check who reach it by
    /// another address, from a guest; 10.96.0.1 is the Service `kubernetes`.
    pub(crate) fn server(&self) -> Credential {
        let mut parameters = named("server", None);
        parameters.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().expect("localhost is ASCII")),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))),
        ];
        self.sign(parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// What a client shows: to the API server, the common name is the user and the organization is its group.
    pub(crate) fn user(&self, name: &str, group: Option<&str>) -> Credential {
        self.sign(named(name, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Credential {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        let key = new_key();
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("the parameters are complete");
        Credential {
            public: certificate.pem(),
            private: key.serialize_pem(),
        }
    }
}

/// A key pair that signs ServiceAccount tokens. It is no certificate: the API server wants the bare public key.
/// An EC key makes the tokens ES256; clusters have RSA keys more often, but nothing of ours looks at a signature.
pub(crate) fn token_key() -> Credential {
    let key = new_key();
    Credential {
        public: key.public_key_pem(),
        private: key.serialize_pem(),
    }
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let subject = &mut parameters.distinguished_name;
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    parameters
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("an EC P-256 key can be generated")
}
