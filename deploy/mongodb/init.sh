#!/usr/bin/env bash
# Makes a replica set of mongodb-1 to mongodb-3, and imports the documents in /documents into the database Fylora.
# Skips the steps that are already done, so it may run any number of times. Ends once the replica set accepts writes.
set -euo pipefail

nodes=mongodb-1:27017,mongodb-2:27017,mongodb-3:27017
uri=mongodb://$nodes/Fylora?replicaSet=rs0

mongosh --quiet mongodb://mongodb-1:27017 --eval '
  try {
    rs.status()
    print("rs0 already exists")
  } catch (error) {
    if (error.codeName !== "NotYetInitialized") throw error
    rs.initiate({ _id: "rs0", members: [1, 2, 3].map(n => ({ _id: n, host: `mongodb-${n}:27017` })) })
    print("rs0 was initiated")
  }'

# The driver waits up to 30 s for a primary. The loop imports the users last, so if there are users, everything is imported.
documents=$(mongosh --quiet "$uri" --eval 'print(db.users.countDocuments({}, { maxTimeMS: 30000 }))')
if [ "$documents" -gt 0 ]; then
  echo "the sample documents are already imported"
  exit
fi
for file in /documents/*.jsonl; do
  mongoimport --quiet --mode upsert --uri "$uri" --collection "$(basename "$file" .jsonl)" --writeConcern majority "$file"
done
# The indexes that the application itself creates.
mongosh --quiet "$uri" --eval '
  db.shares.createIndex({ file_id: 1 })
  db.shares.createIndex({ folder_id: 1 })
  db.temporaryaccesses.createIndex({ resource_id: 1 })'
echo "imported the sample documents"
