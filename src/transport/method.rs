//! The methods of the API, and what is known of each before its request is read.
//!
//! Admits no caller (`callers` does).

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `Check`, `BatchCheck`, `ListPermissions`, `PlanFilter`, `ListResources` and `ListSubjects`.
    Check,
    /// The same, and `Watch`.
    Watch,
    /// Everything: also `Explain` and `Invalidate`.
    Admin,
}

impl Scope {
    /// Every scope, each with the rights of those before it.
    pub const ALL: [Self; 3] = [Self::Check, Self::Watch, Self::Admin];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Watch => "watch",
            Self::Admin => "admin",
        }
    }
}

/// A method of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Check,
    BatchCheck,
    ListPermissions,
    Explain,
    PlanFilter,
    ListResources,
    ListSubjects,
    Invalidate,
    Watch,
}

impl Method {
    /// Every method.
    pub(super) const ALL: [Self; 9] = [
        Self::Check,
        Self::BatchCheck,
        Self::ListPermissions,
        Self::Explain,
        Self::PlanFilter,
        Self::ListResources,
        Self::ListSubjects,
        Self::Invalidate,
        Self::Watch,
    ];

    /// Its path.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Check => "/permcached.v1.PermissionService/Check",
            Self::BatchCheck => "/permcached.v1.PermissionService/BatchCheck",
            Self::ListPermissions => "/permcached.v1.PermissionService/ListPermissions",
            Self::Explain => "/permcached.v1.PermissionService/Explain",
            Self::PlanFilter => "/permcached.v1.PermissionService/PlanFilter",
            Self::ListResources => "/permcached.v1.PermissionService/ListResources",
            Self::ListSubjects => "/permcached.v1.PermissionService/ListSubjects",
            Self::Invalidate => "/permcached.v1.InvalidationService/Invalidate",
            Self::Watch => "/permcached.v1.WatchService/Watch",
        }
    }

    /// The method at this path.
    pub(super) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.path() == path)
    }

    /// What a caller must be allowed to do to call it.
    pub(super) fn scope(self) -> Scope {
        match self {
            Self::Check
            | Self::BatchCheck
            | Self::ListPermissions
            | Self::PlanFilter
            | Self::ListResources
            | Self::ListSubjects => Scope::Check,
            Self::Watch => Scope::Watch,
            Self::Explain | Self::Invalidate => Scope::Admin,
        }
    }

    /// Whether its response is a stream. Such a response may wait for its client: each stream has a bounded buffer.
    pub(super) fn is_stream(self) -> bool {
        self == Self::Watch
    }

    /// Whether its work does not show in the size of the request: `Explain` has up to 2,000 steps, and a list may check 10,000
    /// candidates.
    pub(super) fn is_always_large(self) -> bool {
        match self {
            Self::Explain | Self::PlanFilter | Self::ListResources | Self::ListSubjects => true,
            Self::Check | Self::BatchCheck | Self::ListPermissions | Self::Invalidate | Self::Watch => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::{super::proto::DESCRIPTORS, *};

    #[test]
    fn the_methods_are_those_of_the_api() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let mut described = Vec::new();
        for file in &files {
            for service in &file.service {
                let path = |name: &str| format!("/{}.{}/{name}", file.package(), service.name());
                described.extend(service.method.iter().map(|method| (path(method.name()), method.server_streaming())));
            }
        }
        for (path, is_stream) in &described {
            assert_eq!(Method::at(path).map(Method::is_stream), Some(*is_stream), "{path}");
        }
        assert_eq!(described.len(), Method::ALL.len());
        for path in ["", "/", "/permcached.v1.PermissionService/Check/", "/permcached.v1.PermissionService/check"] {
            assert_eq!(Method::at(path), None, "{path}");
        }
    }
}
