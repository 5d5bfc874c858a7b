// Calls every method of the package once. Both module systems use it, with the package as they load it.
const assert = require('node:assert/strict')

exports.everyMethod = async (api, testing, { schema, documents, users, files }) => {
  const server = await testing.startPermcached({ schema, documents, client: { defaultSubject: 'user' } })
  try {
    const { permissions } = server
    await permissions.ready()
    assert.equal(await permissions.can(users.bob, 'read', 'file', files.shared), true)
    assert.equal(await permissions.can(users.zoe, 'read', 'file', files.shared), false)
    const question = { subject: users.bob, permission: 'read', resource: { type: 'file', id: files.shared } }
    const { allowed, grantedBy, asOf } = await permissions.check(question)
    assert.deepEqual([allowed, grantedBy], [true, 'folder#guest'])
    assert.equal((await permissions.check(question, { atLeastAsFresh: asOf })).allowed, true)
    const results = await permissions.checkAll([question, { ...question, resource: { type: 'file', id: 'no id' } }])
    assert.equal(results[0].allowed, true)
    assert.ok(results[1].error instanceof api.InvalidQuestion)
    assert.deepEqual(await permissions.filterAllowed(users.bob, 'read', 'file', [{ _id: files.private }, { _id: files.shared }]), [
      { _id: files.shared },
    ])
    assert.equal((await permissions.permissionsOf(users.bob, 'file', files.shared)).write.reason, 'NO_GRANT')
    assert.equal((await permissions.explain(question)).steps[0].step, 'QUESTION')
    assert.equal((await permissions.invalidate({ all: true })).published, false)
    const fake = testing.fakePermissions({ [users.bob]: { 'file:1': ['read'] } })
    assert.equal(await fake.can(users.bob, 'read', 'file', '1'), true)
    const controller = new AbortController()
    for await (const { token } of permissions.watch({ since: asOf, signal: controller.signal })) {
      assert.ok(token)
      controller.abort()
    }
  } finally {
    await server.stop()
  }
}
