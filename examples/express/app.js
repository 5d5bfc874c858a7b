// The application's routes. Its own users sign in elsewhere: here, the header `user` names one.
import express from 'express'
import { momentOf } from 'permcached'
import { createGuard, differencesTo, unguarded } from 'permcached/express'
import { File, Note, Share, User } from './models.js'
import { permissions } from './permissions.js'

export const app = express()
app.use(express.json())
app.use(async (req, res, next) => {
  req.user = await User.findOne({ name: req.get('user') ?? '' })
  next()
})

// The moment of each user's last write. An application keeps it in the user's session.
const writes = new Map()
const options = (req) => (writes.has(req.user?.id) ? { atLeastAsFresh: writes.get(req.user.id) } : {})

const requirePermission = createGuard(permissions, { subject: (req) => req.user?._id, options })
const idOf = (req) => req.params.id

app.get('/', unguarded('it only names the routes'), (req, res) => res.json({ routes: ['/files/:id', '/notes', '/notes/:id'] }))

// Before, each of these routes began with: if (!file.owner_id.equals(req.user._id)) return res.sendStatus(403)
app.get('/files/:id', requirePermission('read', 'file', idOf), async (req, res) => {
  const file = await File.findById(req.params.id)
  res.json({ name: file.name, by: req.permission.grantedBy })
})

app.put('/files/:id', requirePermission('write', 'file', idOf), async (req, res) => {
  const file = await File.findByIdAndUpdate(req.params.id, { name: req.body.name }, { new: true })
  res.json({ name: file.name })
})

// Shares a file, and ends that. The very next check sees either: the session remains with the user.
app.post('/files/:id/shares', requirePermission('share', 'file', idOf), async (req, res) => {
  const guest = await User.findOne({ name: req.body.with })
  await written(req, guest, (session) => Share.create([{ file_id: req.params.id, user_id: guest._id }], { session }))
  res.status(201).json({ shared: guest.name })
})

app.delete('/files/:id/shares/:name', requirePermission('share', 'file', idOf), async (req, res) => {
  const guest = await User.findOne({ name: req.params.name })
  await written(req, guest, (session) => Share.deleteMany({ file_id: req.params.id, user_id: guest._id }, { session }))
  res.json({ revoked: guest.name })
})

async function written(req, guest, write) {
  const session = await Share.startSession()
  await write(session)
  for (const user of [req.user, guest]) writes.set(user.id, momentOf(session))
  await session.endSession()
}

// A list: sorted, searched and paged by the application's own query.
app.get('/notes', signedIn, unguarded('the query has its own restriction'), async (req, res) => {
  const own = req.query.title === undefined ? {} : { title: String(req.query.title) }
  const notes = await Note.find(own).readableBy(req.user._id, options(req)).sort('title').limit(20)
  res.json(notes.map(({ title }) => title))
})

app.delete('/notes/:id', requirePermission('delete', 'note', idOf, { hide: true }), async (req, res) => {
  await Note.deleteOne({ _id: req.params.id }).permittedFor(req.user._id, 'delete')
  res.sendStatus(204)
})

function signedIn(req, res, next) {
  if (req.user) next()
  else res.sendStatus(401)
}

// Shadow mode: the old check decides, and differences go to a file. `npx permcached report differences.jsonl` shows them.
const old = async (req) => (await File.findById(req.params.id))?.owner_id.equals(req.user._id) === true
const shadow = { mode: 'observe', old, ids: true, sink: differencesTo('differences.jsonl') }
app.get('/compared/:id', requirePermission('read', 'file', idOf, { shadow }), (req, res) => res.json({ id: req.params.id }))
