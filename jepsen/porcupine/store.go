package main

import (
	"fmt"
	"hash/fnv"
	"sort"
	"strings"

	"github.com/anishathalye/porcupine"
)

// store is a whole etcd without leases at one revision; it never changes.
type store struct {
	revision  int64
	compacted int64
	pairs     map[string]Pair
	// The store one revision before.
	before *store
	// What the store is and was, for comparing two of them.
	print uint64
}

var storeModel = porcupine.Model{
	Init: func() any { return &store{revision: 1, pairs: map[string]Pair{}} },
	Step: func(state, input, output any) (bool, any) {
		return stepStore(state.(*store), input.(*Operation), output.(*Answer))
	},
	Equal: func(one, other any) bool { return one.(*store).equal(other.(*store)) },
	Hash:  func(state any) uint64 { return state.(*store).print },
}

func (own *store) equal(other *store) bool {
	return own.print == other.print && own.revision == other.revision && own.compacted == other.compacted
}

func stepStore(state *store, one *Operation, answer *Answer) (bool, any) {
	if compact := one.Action.Compact; compact != nil {
		if compact.Revision <= state.compacted || compact.Revision > state.revision {
			return answer == nil, state
		}
		next := *state
		next.compacted = compact.Revision
		return answer == nil || answer.Revision == state.revision, &next
	}
	session := session{store: state, pairs: state.pairs}
	body, ok := session.perform(&one.Action)
	if !ok {
		return answer == nil, state
	}
	next := session.finish()
	if answer == nil {
		return true, next
	}
	return answer.Revision == next.revision && print(body) == print(answer.Body), next
}

// session is one action under way.
type session struct {
	store   *store
	pairs   map[string]Pair
	changes []string
}

func (session *session) perform(action *Action) (Body, bool) {
	if action.Txn == nil {
		return session.request(action.requests()[0])
	}
	succeeded := true
	for _, compare := range action.Txn.Compares {
		succeeded = succeeded && session.holds(compare)
	}
	answer := TxnAnswer{Succeeded: succeeded}
	for _, request := range branch(action.Txn, succeeded) {
		body, ok := session.request(request)
		if !ok {
			return Body{}, false
		}
		answer.Answers = append(answer.Answers, body)
	}
	return Body{Txn: &answer}, true
}

func (session *session) request(request Request) (Body, bool) {
	switch {
	case request.Range != nil:
		return session.read(request.Range)
	case request.Put != nil:
		return session.put(request.Put), true
	}
	return session.delete(request.Delete), true
}

func (session *session) read(asked *Range) (Body, bool) {
	pairs := session.pairs
	if asked.Revision != 0 {
		if asked.Revision > session.store.revision || asked.Revision < session.store.compacted {
			return Body{}, false
		}
		at := session.store
		for at.revision > asked.Revision && at.before != nil {
			at = at.before
		}
		pairs = at.pairs
	}
	found := among(pairs, asked.Keys)
	answer := RangeAnswer{Pairs: found, Count: len(found)}
	if asked.Limit > 0 && len(found) > asked.Limit {
		answer.Pairs, answer.More = found[:asked.Limit], true
	}
	return Body{Range: &answer}, true
}

func (session *session) put(put *Put) Body {
	revision := session.store.revision + 1
	pair := Pair{Key: put.Key, Value: put.Value, Created: revision, Modified: revision, Version: 1}
	var answer PutAnswer
	if previous, found := session.pairs[put.Key]; found {
		pair.Created, pair.Version = previous.Created, previous.Version+1
		if put.Previous {
			answer.Previous = &previous
		}
	}
	session.own()
	session.pairs[put.Key] = pair
	session.changes = append(session.changes, fmt.Sprintf("%q=%q", put.Key, put.Value))
	return Body{Put: &answer}
}

func (session *session) delete(asked *Delete) Body {
	found := among(session.pairs, asked.Keys)
	for _, pair := range found {
		session.own()
		delete(session.pairs, pair.Key)
		session.changes = append(session.changes, fmt.Sprintf("%q", pair.Key))
	}
	answer := DeleteAnswer{Deleted: len(found)}
	if asked.Previous {
		answer.Previous = found
	}
	return Body{Delete: &answer}
}

// own makes the pairs the session's before its first change.
func (session *session) own() {
	if len(session.changes) > 0 {
		return
	}
	own := make(map[string]Pair, len(session.pairs)+1)
	for key, pair := range session.pairs {
		own[key] = pair
	}
	session.pairs = own
}

func (session *session) finish() *store {
	if len(session.changes) == 0 {
		return session.store
	}
	hash := fnv.New64a()
	fmt.Fprint(hash, session.store.print, strings.Join(session.changes, " "))
	return &store{
		revision:  session.store.revision + 1,
		compacted: session.store.compacted,
		pairs:     session.pairs,
		before:    session.store,
		print:     hash.Sum64(),
	}
}

func (session *session) holds(compare Compare) bool {
	pair, found := session.store.pairs[compare.Key]
	operand := compare.Operand
	number := func(own, other int64) bool {
		switch {
		case own < other:
			return stands(compare.Relation, -1)
		case own > other:
			return stands(compare.Relation, 1)
		}
		return stands(compare.Relation, 0)
	}
	switch {
	case operand.Value != nil:
		return found && stands(compare.Relation, compareText(pair.Value, *operand.Value))
	case operand.Modified != nil:
		return number(pair.Modified, *operand.Modified)
	case operand.Created != nil:
		return number(pair.Created, *operand.Created)
	case operand.Version != nil:
		return number(pair.Version, *operand.Version)
	}
	return number(pair.Lease, *operand.Lease)
}

func compareText(own, other string) int { return strings.Compare(own, other) }

func stands(relation string, order int) bool {
	switch relation {
	case "Equal":
		return order == 0
	case "NotEqual":
		return order != 0
	case "Greater":
		return order > 0
	}
	return order < 0
}

func among(pairs map[string]Pair, keys Keys) []Pair {
	var found []Pair
	for key, pair := range pairs {
		if keys.covers(key) {
			found = append(found, pair)
		}
	}
	sort.Slice(found, func(one, other int) bool { return found[one].Key < found[other].Key })
	return found
}

// print tells bodies apart; a missing list is an empty one.
func print(body Body) string {
	switch {
	case body.Range != nil:
		return fmt.Sprint("range", body.Range.Pairs, body.Range.Count, body.Range.More)
	case body.Put != nil:
		if body.Put.Previous == nil {
			return "put"
		}
		return fmt.Sprint("put", *body.Put.Previous)
	case body.Delete != nil:
		return fmt.Sprint("delete", body.Delete.Deleted, body.Delete.Previous)
	case body.Txn != nil:
		var answers []string
		for _, answer := range body.Txn.Answers {
			answers = append(answers, print(answer))
		}
		return fmt.Sprint("txn", body.Txn.Succeeded, answers)
	}
	return "nothing"
}
