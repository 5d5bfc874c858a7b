//! Lists of the subjects that may access a resource.
//!
//! Whether a single subject may is tested elsewhere: here each list is compared with what the checks of single subjects say.

mod brute_force;
mod changes;
mod many_sets;
mod named;
mod renamed;

use permcached::{
    check::Consistency,
    list::{ListError, Lister, SubjectList, SubjectPage},
    question::{Id, PermissionId, Question, Resource, SubjectTypeId},
    schema::{Schema, SubjectText},
    source::Deadline,
};

use crate::support::both::TIME_MAX;

/// The subjects of a type that have a permission on a resource.
#[derive(Clone, Debug)]
struct Asked {
    permission: PermissionId,
    resource: Resource,
    kind: SubjectTypeId,
}

impl Asked {
    /// Reads a question such as `read doc:1 user`.
    fn parse(schema: &Schema, text: &str) -> Self {
        let [permission, resource, kind] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let (resource_kind, id) = resource.split_once(':').expect("type:id");
        let asked = schema.question(SubjectText::Anonymous, permission, resource_kind, id);
        let Question { permission, resource, .. } = asked.unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        let found = schema.subjects().find(|(_, declared)| *declared.name == *kind);
        Self { permission, resource, kind: found.expect("a subject type").0 }
    }

    /// One page.
    async fn page(
        &self,
        lister: &Lister,
        size: usize,
        after: Option<Id>,
        consistency: Consistency,
    ) -> Result<SubjectList, ListError> {
        let Self { permission, resource, kind } = self;
        let (page, deadline) = (SubjectPage { size, after }, Deadline::after(TIME_MAX));
        lister.list_subjects(*permission, resource, *kind, consistency, page, deadline).await
    }

    /// All pages of a size as one list.
    async fn pages(&self, lister: &Lister, size: usize, consistency: Consistency) -> Result<SubjectList, ListError> {
        let mut all = self.page(lister, size, None, consistency).await?;
        while let Some(after) = all.next.take() {
            let SubjectList { subjects, everybody, sets, next, .. } =
                self.page(lister, size, Some(after), consistency).await?;
            assert!(subjects.len() <= size && all.subjects.len() % size == 0, "only the last page is short");
            assert_eq!((everybody, &sets), (all.everybody, &all.sets), "each page says it");
            all.subjects.extend(subjects);
            all.next = next;
        }
        Ok(all)
    }
}

/// The subjects, whether everybody may, and the sets.
fn shown(schema: &Schema, list: &SubjectList) -> String {
    let subjects = list.subjects.iter().map(|listed| listed.id.to_string());
    let sets = list
        .sets
        .iter()
        .map(|(kind, id, member)| format!("{}:{id}#{}", schema.resource(*kind).name, schema.member_name(*member)));
    subjects.chain([list.everybody.as_str().to_owned()]).chain(sets).collect::<Vec<_>>().join(" ")
}
