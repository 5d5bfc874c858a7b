// The mongoose plugin, plans and lists with the real server: what they find is what checks allow.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import mongoose from 'mongoose'
import { subject } from 'permcached'
import { BOB, HOLIDAY_LINK, PRIVATE, sampleDatabase, serverOver, SHARED, ZOE } from './support/samples.mjs'

const { EJSON, ObjectId } = mongoose.mongo.BSON
const TYPES = { file: 'files', folder: 'folders', note: 'notes', team: 'teams' }
const READ = { file: 'read', folder: 'read', note: 'read', team: 'view' }

let sample, server, permissions, connection
const models = {}
let users
before(async () => {
  sample = await sampleDatabase()
  server = await serverOver(sample, { client: { deadlineMs: 30_000 } })
  permissions = server.permissions
  connection = await mongoose.createConnection(sample.uri).asPromise()
  for (const [type, collection] of Object.entries(TYPES)) {
    // The application's schema has almost none of the fields that permissions depend on.
    const schema = new mongoose.Schema({ name: String, owner_id: String }, { strictQuery: true })
    schema.plugin(permissions.mongoose({ type, strict: true }))
    models[type] = connection.model(type, schema, collection)
  }
  users = (await sample.database.collection('users').find().toArray()).map(({ _id }) => _id)
})
after(async () => {
  await connection?.close()
  await server?.stop()
  await sample?.close()
})

const idsOf = (documents) => documents.map(({ _id }) => String(_id)).sort()

/** The ids of all resources of a type on which checks allow a permission. */
async function allowed(who, type, permission = READ[type]) {
  const all = await sample.database.collection(TYPES[type]).find().toArray()
  return idsOf(await permissions.filterAllowed(who, permission, type, all, ({ _id }) => _id, { fullyConsistent: true }))
}

test('a query of the plugin finds exactly what checks allow, for every user and type', async () => {
  let found = 0
  for (const type of Object.keys(TYPES)) {
    for (const who of [...users, subject('link', HOLIDAY_LINK)]) {
      const expected = await allowed(who, type)
      const query = models[type].find().permittedFor(who, READ[type], { fullyConsistent: true })
      assert.deepEqual(idsOf(await query), expected, `${type} ${String(who)}`)
      assert.equal(await models[type].countDocuments().permittedFor(who, READ[type], { fullyConsistent: true }), expected.length)
      found += expected.length
    }
  }
  assert.ok(found > 30, String(found))
})

test('own conditions, sort, limit and aggregations stay what they are', async () => {
  const expected = await allowed(BOB, 'file')
  const all = await models.file.find().readableBy(BOB).sort('_id')
  assert.deepEqual(
    all.map(({ id }) => id),
    expected,
  )
  assert.deepEqual(
    (await models.file.find().readableBy(BOB).sort('-_id').limit(2)).map(({ id }) => id),
    expected.toReversed().slice(0, 2),
  )
  assert.deepEqual(
    idsOf(
      await models.file
        .find({ _id: PRIVATE })
        .readableBy(BOB)
        .or([{ _id: PRIVATE }, {}]),
    ),
    [],
  )
  const [{ count }] = await models.file.aggregate([{ $count: 'count' }]).readableBy(BOB)
  assert.equal(count, expected.length)
  await assert.rejects(models.file.find().readableBy(BOB).collation({ locale: 'en' }).read('secondary'), /secondary/)
})

test('plan and list have the same resources; pages have no duplicates, and leave out nothing', async () => {
  for (const who of users) {
    const expected = await allowed(who, 'file')
    const { kind, filter } = await permissions.plan(who, 'read', 'file', { fullyConsistent: true })
    const found = await sample.database
      .collection('files')
      .find(EJSON.parse(filter, { relaxed: false }))
      .toArray()
    if (kind === 'SUPERSET') assert.ok(expected.every((id) => idsOf(found).includes(id)))
    else assert.deepEqual(idsOf(found), expected)
    const listed = []
    let pageToken
    do {
      const page = await permissions.list(who, 'read', 'file', { pageSize: 2, pageToken, fullyConsistent: true })
      assert.ok(page.resources.length <= 2)
      listed.push(...page.resources.map(({ id }) => id))
      pageToken = page.nextPageToken
    } while (pageToken !== undefined)
    assert.deepEqual(listed, expected)
  }
  const within = { owner_id: new ObjectId(BOB) }
  const { resources } = await permissions.list(BOB, 'read', 'file', { within })
  assert.ok(resources.length > 0 && resources.every(({ id }) => id !== SHARED))
  assert.equal((await permissions.plan('dead00000000000000000009', 'read', 'file')).kind, 'NONE')
})

test('a revocation is seen by a query with the moment of the write', async () => {
  const session = await connection.startSession()
  const shares = sample.database.collection('shares')
  const share = { file_id: new ObjectId(PRIVATE), shared_with_user_id: new ObjectId(ZOE), share_type: 'internal', is_active: true }
  // The session belongs to the same driver.
  const own = connection.collection('shares')
  await own.insertOne(share, { session })
  assert.deepEqual(idsOf(await models.file.find().readableBy(ZOE, { atLeastAsFresh: session })), [PRIVATE])
  await own.deleteOne({ _id: share._id }, { session })
  assert.deepEqual(idsOf(await models.file.find().readableBy(ZOE, { atLeastAsFresh: session })), [])
  await session.endSession()
  assert.equal(await shares.countDocuments({ _id: share._id }), 0)
})

test('who has the subjects that checks allow', async () => {
  for (const id of [SHARED, PRIVATE]) {
    const checks = await permissions.checkAll(users.map((who) => ({ subject: who, permission: 'read', resource: { type: 'file', id } })))
    const expected = users
      .filter((_, index) => checks[index].allowed)
      .map(String)
      .sort()
    const { subjects, everybody } = await permissions.who('read', 'file', id)
    assert.deepEqual([subjects.map((each) => each.id), everybody], [expected, 'NO'])
  }
})
