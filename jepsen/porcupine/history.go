package main

import (
	"bytes"
	"encoding/json"
)

// History is the part of a run's history that is asked about.
type History struct {
	Operations []Operation `json:"operations"`
}

// Operation is one request and its answer.
type Operation struct {
	Client   int64   `json:"client"`
	Invoked  int64   `json:"invoked"`
	Returned int64   `json:"returned"`
	Action   Action  `json:"action"`
	Outcome  Outcome `json:"outcome"`
}

// Outcome has one of its fields set.
type Outcome struct {
	Done    *Answer
	Refused *string
	Unknown *string
}

// Action has one of its fields set.
type Action struct {
	Range           *Range
	Put             *Put
	Delete          *Delete
	Txn             *Txn
	Compact         *Compact
	LeaseGrant      *Lease
	LeaseRevoke     *Lease
	LeaseKeepAlive  *Lease
	LeaseTimeToLive *Lease
}

// Keys are one key, or those from Key to before End; "\x00" is no end.
type Keys struct {
	Key string `json:"key"`
	End string `json:"end"`
}

type Range struct {
	Keys
	Revision     int64 `json:"revision"`
	Limit        int   `json:"limit"`
	Serializable bool  `json:"serializable"`
}

type Put struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	Lease    int64  `json:"lease"`
	Previous bool   `json:"previous"`
}

type Delete struct {
	Keys
	Previous bool `json:"previous"`
}

type Txn struct {
	Compares  []Compare `json:"compares"`
	Then      []Request `json:"then"`
	Otherwise []Request `json:"otherwise"`
}

// Request has one of its fields set.
type Request struct {
	Range  *Range
	Put    *Put
	Delete *Delete
}

type Compare struct {
	Key      string  `json:"key"`
	Relation string  `json:"relation"`
	Operand  Operand `json:"operand"`
}

// Operand has one of its fields set.
type Operand struct {
	Value    *string
	Modified *int64
	Created  *int64
	Version  *int64
	Lease    *int64
}

type Compact struct {
	Revision int64 `json:"revision"`
}

type Lease struct {
	ID int64 `json:"id"`
}

// Answer is a header's revision and what belongs to the action.
type Answer struct {
	Revision int64 `json:"revision"`
	Body     Body  `json:"body"`
}

// Body has one of its fields set, or none.
type Body struct {
	Range  *RangeAnswer
	Put    *PutAnswer
	Delete *DeleteAnswer
	Txn    *TxnAnswer
}

// UnmarshalJSON also takes the text "Nothing".
func (body *Body) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte(`"`)) {
		return nil
	}
	type plain Body
	return json.Unmarshal(text, (*plain)(body))
}

type RangeAnswer struct {
	Pairs []Pair `json:"pairs"`
	Count int    `json:"count"`
	More  bool   `json:"more"`
}

type PutAnswer struct {
	Previous *Pair `json:"previous"`
}

type DeleteAnswer struct {
	Deleted  int    `json:"deleted"`
	Previous []Pair `json:"previous"`
}

type TxnAnswer struct {
	Succeeded bool   `json:"succeeded"`
	Answers   []Body `json:"answers"`
}

// Pair is a key as it is at one revision.
type Pair struct {
	Key      string `json:"key"`
	Value    string `json:"value"`
	Created  int64  `json:"created"`
	Modified int64  `json:"modified"`
	Version  int64  `json:"version"`
	Lease    int64  `json:"lease"`
}

func (keys Keys) covers(key string) bool {
	switch keys.End {
	case "":
		return key == keys.Key
	case "\x00":
		return key >= keys.Key
	}
	return key >= keys.Key && key < keys.End
}

// requests of an action, those of both branches of a transaction.
func (action *Action) requests() []Request {
	switch {
	case action.Txn != nil:
		return append(append([]Request{}, action.Txn.Then...), action.Txn.Otherwise...)
	case action.Range != nil, action.Put != nil, action.Delete != nil:
		return []Request{{Range: action.Range, Put: action.Put, Delete: action.Delete}}
	}
	return nil
}

func (action *Action) isLease() bool {
	return action.LeaseGrant != nil || action.LeaseRevoke != nil || action.LeaseKeepAlive != nil ||
		action.LeaseTimeToLive != nil
}

// isSerializable says whether an old state would do for an answer.
func (action *Action) isSerializable() bool {
	if action.Compact != nil {
		return false
	}
	for _, request := range action.requests() {
		if request.Range == nil || !request.Range.Serializable {
			return false
		}
	}
	return true
}

func (action *Action) usesLease() bool {
	for _, request := range action.requests() {
		if request.Put != nil && request.Put.Lease != 0 {
			return true
		}
	}
	return false
}

// keys an action touches, and whether it is one alone, as it is now.
func (action *Action) keys() (keys []string, single bool) {
	seen := map[string]bool{}
	single = true
	add := func(some Keys) {
		single = single && some.End == ""
		if !seen[some.Key] {
			seen[some.Key] = true
			keys = append(keys, some.Key)
		}
	}
	for _, request := range action.requests() {
		switch {
		case request.Range != nil:
			single = single && request.Range.Revision == 0
			add(request.Range.Keys)
		case request.Put != nil:
			add(Keys{Key: request.Put.Key})
		case request.Delete != nil:
			add(request.Delete.Keys)
		}
	}
	if action.Txn != nil {
		for _, compare := range action.Txn.Compares {
			add(Keys{Key: compare.Key})
		}
	}
	return keys, single && len(keys) == 1
}
