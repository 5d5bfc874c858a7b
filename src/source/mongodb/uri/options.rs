//! The options of a connection string: those that the driver knows, those that permcached decides for itself, and those of other
//! official drivers. The names are compared without regard to case.

use std::collections::BTreeMap;

use crate::{
    diagnosis::{Diagnosis, Subject},
    schema::{listed, suggestion},
};

/// What an option means here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The driver follows it.
    Driver,
    /// The driver follows it by this name.
    Alias(&'static str),
    /// It tells how an application writes. It has no effect, as permcached only reads.
    Own,
    /// It tells from where, or how current, an application reads. permcached decides that for itself.
    OwnReads,
    /// It is for other drivers.
    Foreign,
    /// It would relax the verification of the server, which the driver does not do in this way: it stays as strict as it is.
    Lax,
    /// It cannot be followed, and without it the connection would be less safe than intended, or would not be the one meant.
    Refused(&'static str),
}

/// Which values an option may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Any text.
    Text,
    /// Any text, which no error shows.
    Hidden,
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Number(i64, i64),
    /// One of these, without regard to case.
    Choice(&'static [&'static str]),
    /// A list of compressors.
    Compressors,
    /// The path of a file that can be read.
    File,
}

use Effect::{Alias, Driver, Foreign, Lax, Own, OwnReads, Refused};
use Value::{Choice, Compressors, File, Flag, Hidden, Number, Text};

/// A number of milliseconds, or a count.
const COUNT: Value = Number(0, 4_294_967_295);

/// The value of `authMechanism` in other drivers that means the same as no value.
const DEFAULT: &str = "DEFAULT";

/// The compressors that the driver has.
const COMPRESSORS: [&str; 3] = ["zstd", "snappy", "zlib"];

const CRL: &str =
    "the driver cannot check revocation lists: remove it only if a revoked server certificate is no concern";
const PROXY: &str = "connections through a SOCKS5 proxy are not supported: remove the options that begin with `proxy`, and let \
                     this machine reach MongoDB directly or through a tunnel";
const KEY_PASSWORD: &str = "the driver reads only keys without a password: write the key to a file without one, which only \
                            permcached may read (`openssl pkey -in KEY.pem -out PLAIN.pem`), and remove this option";
const TWO_FILES: &str =
    "the driver reads the certificate and its key from one file: join the two, and name it by tlsCertificateKeyFile";
const DATABASE: &str =
    "name the database after the host, as in mongodb://host/NAME, or set MONGODB_DATABASE, and remove this option";
const ENCRYPTION: &str =
    "client-side encryption is not supported: remove it, if the fields that the schema reads are not encrypted";

/// The options of the official drivers, present and past.
const KNOWN: &[(&str, Value, Effect)] = &[
    ("appName", Text, Driver),
    (
        "authMechanism",
        Choice(&["SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509", "PLAIN", "MONGODB-OIDC", DEFAULT]),
        Driver,
    ),
    ("authMechanismProperties", Hidden, Driver),
    ("authSource", Text, Driver),
    ("compressors", Compressors, Driver),
    ("connectTimeoutMS", COUNT, Driver),
    ("directConnection", Flag, Driver),
    ("heartbeatFrequencyMS", Number(500, 4_294_967_295), Driver),
    ("loadBalanced", Flag, Driver),
    ("localThresholdMS", COUNT, Driver),
    ("maxConnecting", Number(1, 4_294_967_295), Driver),
    ("maxIdleTimeMS", COUNT, Driver),
    ("maxPoolSize", COUNT, Driver),
    ("minPoolSize", COUNT, Driver),
    ("replicaSet", Text, Driver),
    ("retryReads", Flag, Driver),
    ("serverMonitoringMode", Choice(&["auto", "poll", "stream"]), Driver),
    ("serverSelectionTimeoutMS", COUNT, Driver),
    ("srvMaxHosts", COUNT, Driver),
    ("srvServiceName", Text, Driver),
    ("tls", Flag, Driver),
    ("ssl", Flag, Alias("tls")),
    ("tlsAllowInvalidCertificates", Flag, Driver),
    ("tlsCAFile", File, Driver),
    ("sslCA", File, Alias("tlsCAFile")),
    ("sslCertificateAuthorityFile", File, Alias("tlsCAFile")),
    ("ssl_ca_certs", File, Alias("tlsCAFile")),
    ("tlsCertificateKeyFile", File, Driver),
    ("sslClientCertificateKeyFile", File, Alias("tlsCertificateKeyFile")),
    ("tlsInsecure", Flag, Driver),
    ("waitQueueTimeoutMS", COUNT, Driver),
    ("zlibCompressionLevel", Number(-1, 9), Driver),
    // What an application writes, and how. permcached writes nothing.
    ("fsync", Flag, Own),
    ("j", Flag, Own),
    ("journal", Flag, Own),
    ("retryWrites", Flag, Own),
    ("safe", Flag, Own),
    ("w", Text, Own),
    ("writeConcern", Text, Own),
    ("wtimeout", COUNT, Own),
    ("wtimeoutMS", COUNT, Own),
    ("maxStalenessSeconds", Number(-1, 4_294_967_295), OwnReads),
    ("readConcern", Text, OwnReads),
    ("readConcernLevel", Choice(&["local", "available", "majority", "linearizable", "snapshot"]), OwnReads),
    (
        "readPreference",
        Choice(&["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"]),
        OwnReads,
    ),
    ("readPreferenceTags", Text, OwnReads),
    ("slaveOk", Flag, OwnReads),
    // The driver does not relax these one by one.
    ("checkServerIdentity", Text, Lax),
    ("rejectUnauthorized", Text, Lax),
    ("sslAllowInvalidCertificates", Text, Lax),
    ("sslAllowInvalidHostnames", Text, Lax),
    ("sslInsecure", Text, Lax),
    ("sslInvalidHostNameAllowed", Text, Lax),
    ("sslValidate", Text, Lax),
    ("sslVerifyCertificate", Text, Lax),
    ("ssl_cert_reqs", Text, Lax),
    ("ssl_match_hostname", Text, Lax),
    ("allowInsecureTls", Text, Lax),
    ("tlsAllowInvalidHostnames", Text, Lax),
    ("autoEncryption", Hidden, Refused(ENCRYPTION)),
    ("dbName", Text, Refused(DATABASE)),
    ("auto_encryption_opts", Hidden, Refused(ENCRYPTION)),
    ("proxyHost", Text, Refused(PROXY)),
    ("proxyPassword", Hidden, Refused(PROXY)),
    ("proxyPort", COUNT, Refused(PROXY)),
    ("proxyUsername", Text, Refused(PROXY)),
    ("sslCRL", Text, Refused(CRL)),
    ("ssl_crlfile", Text, Refused(CRL)),
    ("tlsCRLFile", Text, Refused(CRL)),
    ("sslClientCertificateKeyPassword", Hidden, Refused(KEY_PASSWORD)),
    ("sslPass", Hidden, Refused(KEY_PASSWORD)),
    ("ssl_pem_passphrase", Hidden, Refused(KEY_PASSWORD)),
    ("tlsCertificateKeyFilePassword", Hidden, Refused(KEY_PASSWORD)),
    ("ssl_certfile", Text, Refused(TWO_FILES)),
    ("ssl_keyfile", Text, Refused(TWO_FILES)),
    ("tlsCertificateFile", Text, Refused(TWO_FILES)),
    ("tlsPrivateKeyFile", Text, Refused(TWO_FILES)),
];

/// Options of other official drivers, which have no counterpart here.
const FOREIGN: &[&str] = &[
    "acceptableLatencyMS",
    "adaptiveRetries",
    "autoCreate",
    "autoIndex",
    "autoReconnect",
    "bsonRegExp",
    "bufferCommands",
    "bufferMaxEntries",
    "canonicalizeHostname",
    "connect",
    "connectTimeout",
    "connectWithNoPrimary",
    "datetime_conversion",
    "document_class",
    "domainsEnabled",
    "enableOverloadRetargeting",
    "enableUtf8Validation",
    "family",
    "fieldsAsRaw",
    "forceServerObjectId",
    "gssapiServiceName",
    "guids",
    "ha",
    "haInterval",
    "heartbeatInterval",
    "ignoreUndefined",
    "ipv6",
    "keepAlive",
    "keepAliveInitialDelay",
    "localThreshold",
    "loggerLevel",
    "maxAdaptiveRetries",
    "maxIdleTime",
    "maxLifeTime",
    "maxLifeTimeMS",
    "minHeartbeatFrequencyMS",
    "minSize",
    "monitorCommands",
    "native_parser",
    "noDelay",
    "numberOfRetries",
    "poolSize",
    "promoteBuffers",
    "promoteLongs",
    "promoteValues",
    "raw",
    "reconnectInterval",
    "reconnectTries",
    "secondaryAcceptableLatencyMS",
    "serializeFunctions",
    "serverApi",
    "serverSelectionTimeout",
    "serverSelectionTryOnce",
    "socketCheckIntervalMS",
    "socketKeepAlive",
    "socketTimeout",
    "socketTimeoutMS",
    "streamType",
    "strictQuery",
    "timeout",
    "timeoutMS",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
    "type_registry",
    "tz_aware",
    "unicode_decode_error_handler",
    "useBigInt64",
    "useCreateIndex",
    "useFindAndModify",
    "useNewUrlParser",
    "useUnifiedTopology",
    "uuidRepresentation",
    "validateOptions",
    "waitQueueMultiple",
    "waitQueueSize",
    "waitQueueTimeout",
];

/// The options that the driver follows, by its names for them: each with the name that is written and the driver's spelling of the
/// value. A value that is empty is left out.
pub(super) type Found = BTreeMap<&'static str, (&'static str, String)>;

/// The options of a connection string.
#[derive(Default)]
pub(super) struct Options {
    /// Those for the driver.
    pub(super) found: Found,
    /// What has no effect here, in words.
    pub(super) notes: Vec<Diagnosis>,
    /// Whether an `@` stands where no option has one: in a name, or in a value that is not free text.
    pub(super) has_stray_at: bool,
}

impl Options {
    /// Those for the driver, as `name=value`.
    pub(super) fn driver(&self) -> Vec<String> {
        let given = self.found.iter().filter(|(_, (_, value))| !value.is_empty());
        given.map(|(name, (_, value))| format!("{name}={value}")).collect()
    }

    /// The driver's spelling of a value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.found.get(name).map(|(_, value)| value.as_str())
    }
}

/// Reads the part after the `?`.
pub(super) fn read(text: &str, errors: &mut Vec<String>) -> Options {
    let (mut foreign, mut replaced, mut lax) = (Vec::new(), Vec::new(), Vec::new());
    let mut options = Options::default();
    for pair in text.split(['&', ';']).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some((known, kind, effect)) = known(name) else {
            options.has_stray_at |= pair.contains('@');
            errors.push(unknown(name));
            continue;
        };
        options.has_stray_at |= value.contains('@') && !may_have_at(kind, effect);
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        if let Refused(why) = effect {
            errors.push(format!("`{known}`: {why}"));
            continue;
        }
        let given = if value.is_empty() && !matches!(effect, Driver | Alias(_)) {
            // It has no effect, whatever its value.
            String::new()
        } else if value.is_empty() {
            errors.push(format!("`{known}` has no value: write `{known}=…`, or remove it"));
            continue;
        } else {
            let Some(given) = checked(known, kind, &decoded, value, &mut options.notes, errors) else { continue };
            given
        };
        match effect {
            // Of several mechanisms, the server and the driver agree on one.
            Driver if known == "authMechanism" && given == DEFAULT => {}
            Foreign => foreign.push(known),
            Lax if is_lax(known, &decoded) => lax.push(known),
            // The primary is what is read.
            OwnReads if !(known == "readPreference" && given == "primary") => replaced.push(known),
            Own | Lax | OwnReads | Refused(_) => {}
            Driver | Alias(_) => {
                let driver = if let Alias(name) = effect { name } else { known };
                match options.found.insert(driver, (known, given.clone())) {
                    Some((_, other)) if other == given => {}
                    Some((other, _)) if other == known => {
                        errors.push(format!("`{known}` is set twice, to different values: remove one of them"));
                    }
                    Some((other, _)) => {
                        errors.push(format!("`{other}` and `{known}` contradict each other: remove one of them"));
                    }
                    None => {}
                }
            }
        }
    }
    for (name, (known, value)) in &options.found {
        if ["tlsInsecure", "tlsAllowInvalidCertificates"].contains(name) && value == "true" {
            let message = format!("`{known}` is set: the certificate of MongoDB's server is not verified");
            let remedy =
                format!("tlsCAFile=FILE, with the server's certificate authority as PEM, in place of `{known}`");
            options.notes.push(Diagnosis::warning(Subject::Configuration, message, remedy));
        }
    }
    for (mut names, why) in [
        (foreign, "they are for other drivers"),
        (replaced, "permcached reads from the primary, at a snapshot"),
        (lax, "the server's certificate and host name are verified as if they were not set"),
    ] {
        names.dedup();
        if !names.is_empty() {
            options.notes.push(note(format!("without effect: {}, because {why}", listed(&names))));
        }
    }
    options
}

/// What has no effect, and needs no remedy.
fn note(message: String) -> Diagnosis {
    Diagnosis::fine(Subject::Configuration, message)
}

/// An option that one of the official drivers knows.
fn known(name: &str) -> Option<(&'static str, Value, Effect)> {
    let is_name = |known: &str| known.eq_ignore_ascii_case(name);
    let foreign = || FOREIGN.iter().find(|known| is_name(known)).map(|known| (*known, Text, Foreign));
    KNOWN.iter().find(|(known, _, _)| is_name(known)).copied().or_else(foreign)
}

/// Whether a value of this option may have an `@` that is not percent-encoded, such as `appName=@shop@`.
fn may_have_at(kind: Value, effect: Effect) -> bool {
    let is_free = match kind {
        Text | Hidden | File => true,
        Flag | Number(..) | Choice(_) | Compressors => false,
    };
    match effect {
        Driver | Alias(_) | Refused(_) => is_free,
        Own | OwnReads | Foreign | Lax => false,
    }
}

/// The error about an option that no driver knows.
fn unknown(name: &str) -> String {
    let useful = KNOWN.iter().filter(|(_, _, effect)| !matches!(effect, Lax | Refused(_)));
    let names: Vec<&str> = useful.map(|(name, _, _)| *name).chain(FOREIGN.iter().copied()).collect();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !is_name {
        return "an option has a name with other characters than letters and digits: options are separated by `&`"
            .to_owned();
    }
    if name.eq_ignore_ascii_case("amp") {
        return "it has `&amp;`, which is an `&` escaped for HTML: write `&`".to_owned();
    }
    let meant = suggestion(name, names).filter(|remedy| remedy.starts_with("did you mean"));
    let remedy = meant.unwrap_or_else(|| "remove it, or look its name up in MongoDB's manual".to_owned());
    format!("`{name}` is no option of MongoDB's drivers: {remedy}")
}

/// The value as the driver spells it, if it is valid. Empty if the driver is not given the option.
fn checked(
    name: &str,
    kind: Value,
    decoded: &str,
    raw: &str,
    notes: &mut Vec<Diagnosis>,
    errors: &mut Vec<String>,
) -> Option<String> {
    let mut refuse = |wanted: &str| errors.push(format!("`{name}` is `{decoded}`: set it to {wanted}"));
    match kind {
        Text | Hidden => Some(raw.to_owned()),
        Flag => match decoded.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "y" | "t" => Some("true".to_owned()),
            "false" | "0" | "no" | "n" | "f" => Some("false".to_owned()),
            _ => {
                refuse("true or false");
                None
            }
        },
        Number(least, most) => match decoded.parse::<i64>().ok().filter(|number| (least..=most).contains(number)) {
            Some(0) if name == "maxPoolSize" => {
                let instead = "permcached keeps its own limit, as the driver has none without one";
                notes.push(note(format!(
                    "without effect: `{name}=0`, which means no limit in other drivers: {instead}"
                )));
                Some(String::new())
            }
            Some(number) => Some(number.to_string()),
            None => {
                refuse(&format!("a whole number from {least} to {most}"));
                None
            }
        },
        Choice(names) => match names.iter().find(|name| name.eq_ignore_ascii_case(decoded)) {
            Some(name) => Some((*name).to_owned()),
            None => {
                refuse(&format!("one of {}", listed(names)));
                None
            }
        },
        Compressors => {
            let (usable, others): (Vec<&str>, Vec<&str>) = decoded
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .partition(|name| COMPRESSORS.iter().any(|known| known.eq_ignore_ascii_case(name)));
            if !others.is_empty() {
                let names = listed(&COMPRESSORS);
                let left_out = "which the driver does not have: they are left out";
                notes.push(note(format!("`{name}` lists others than {names}, {left_out}")));
            }
            Some(usable.join(",").to_ascii_lowercase())
        }
        File => match std::fs::File::open(decoded) {
            Ok(_) => Some(raw.to_owned()),
            Err(error) => {
                errors.push(format!("`{name}` is `{decoded}`, which cannot be read: {error}"));
                None
            }
        },
    }
}

/// Whether an option of which the driver knows no counterpart asks it to verify less.
fn is_lax(name: &str, value: &str) -> bool {
    let is_false =
        ["false", "0", "no", "none", "cert_none", "ssl.cert_none"].contains(&value.to_ascii_lowercase().as_str());
    let verifies = [
        "checkServerIdentity",
        "rejectUnauthorized",
        "sslValidate",
        "sslVerifyCertificate",
        "ssl_cert_reqs",
        "ssl_match_hostname",
    ];
    verifies.contains(&name) == is_false
}
