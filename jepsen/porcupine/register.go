package main

import "github.com/anishathalye/porcupine"

// register is a key's value; nil where it is not there.
type register = *string

// nameValues tells which value a revision names, by key; nil where answers disagree.
func nameValues(history *History) map[string]map[int64]register {
	names := map[string]map[int64]register{}
	name := func(key string, revision int64, value string) {
		if names[key] == nil {
			names[key] = map[int64]register{}
		}
		known, found := names[key][revision]
		if !found {
			names[key][revision] = &value
		} else if known == nil || *known != value {
			names[key][revision] = nil
		}
	}
	visit := func(body Body) {
		var pairs []Pair
		switch {
		case body.Range != nil:
			pairs = body.Range.Pairs
		case body.Delete != nil:
			pairs = body.Delete.Previous
		case body.Put != nil && body.Put.Previous != nil:
			pairs = []Pair{*body.Put.Previous}
		}
		for _, pair := range pairs {
			name(pair.Key, pair.Modified, pair.Value)
		}
	}
	for _, one := range history.Operations {
		answer := one.Outcome.Done
		if answer == nil {
			continue
		}
		visit(answer.Body)
		if one.Action.Put != nil {
			name(one.Action.Put.Key, answer.Revision, one.Action.Put.Value)
		}
		if one.Action.Txn == nil || answer.Body.Txn == nil {
			continue
		}
		for _, body := range answer.Body.Txn.Answers {
			visit(body)
		}
		for _, request := range branch(one.Action.Txn, answer.Body.Txn.Succeeded) {
			if request.Put != nil {
				name(request.Put.Key, answer.Revision, request.Put.Value)
			}
		}
	}
	return names
}

func branch(txn *Txn, succeeded bool) []Request {
	if succeeded {
		return txn.Then
	}
	return txn.Otherwise
}

// registerModel is a single key that believes no revision: they are only names of values.
func registerModel(names map[int64]register) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{register(nil)} },
		Step: func(state, input, output any) []any {
			return stepRegister(names, state.(register), input.(*Operation), output.(*Answer))
		},
		Equal: func(one, other any) bool { return same(one.(register), other.(register)) },
	}
	return model.ToModel()
}

func same(one, other register) bool {
	if one == nil || other == nil {
		return one == other
	}
	return *one == *other
}

// stepRegister gives every state that may follow; without an answer both branches may be taken.
func stepRegister(names map[int64]register, state register, one *Operation, answer *Answer) []any {
	txn := one.Action.Txn
	if txn == nil {
		var bodies []Body
		if answer != nil {
			bodies = []Body{answer.Body}
		}
		return stepRequests(state, one.Action.requests(), bodies)
	}
	may, mayNot := true, false
	for _, compare := range txn.Compares {
		holds, fails := compareRegister(names, state, compare)
		may = may && holds
		mayNot = mayNot || fails
	}
	var next []any
	if may && (answer == nil || answer.Body.Txn.Succeeded) {
		next = append(next, stepRequests(state, txn.Then, txnBodies(answer))...)
	}
	if mayNot && (answer == nil || !answer.Body.Txn.Succeeded) {
		next = append(next, stepRequests(state, txn.Otherwise, txnBodies(answer))...)
	}
	return next
}

func txnBodies(answer *Answer) []Body {
	if answer == nil {
		return nil
	}
	return answer.Body.Txn.Answers
}

// compareRegister says whether a compare may hold and whether it may fail.
func compareRegister(names map[int64]register, state register, compare Compare) (holds, fails bool) {
	exactly := func(holds bool) (bool, bool) { return holds, !holds }
	operand := compare.Operand
	var number int64
	switch {
	case operand.Value != nil:
		if state == nil {
			return false, true
		}
		return exactly(stands(compare.Relation, compareText(*state, *operand.Value)))
	case operand.Modified != nil && *operand.Modified > 0:
		named := names[*operand.Modified]
		switch {
		case named == nil:
			return true, true
		case compare.Relation == "Equal":
			return exactly(same(state, named))
		case compare.Relation == "NotEqual":
			return exactly(!same(state, named))
		}
		return true, true
	case operand.Modified != nil:
		number = *operand.Modified
	case operand.Created != nil:
		number = *operand.Created
	case operand.Version != nil:
		number = *operand.Version
	default:
		return true, true
	}
	switch {
	case compare.Relation == "Equal" && number == 0:
		return exactly(state == nil)
	case (compare.Relation == "NotEqual" || compare.Relation == "Greater") && number == 0:
		return exactly(state != nil)
	case compare.Relation == "Equal":
		return state != nil, true
	}
	return true, true
}

func stepRequests(state register, requests []Request, bodies []Body) []any {
	found := func(pairs []Pair) bool {
		if len(pairs) == 0 {
			return state == nil
		}
		return state != nil && pairs[0].Value == *state
	}
	for at, request := range requests {
		var body Body
		if bodies != nil {
			if at >= len(bodies) {
				return nil
			}
			body = bodies[at]
		}
		switch {
		case request.Range != nil:
			if body.Range != nil && !found(body.Range.Pairs) {
				return nil
			}
		case request.Put != nil:
			if request.Put.Previous && body.Put != nil {
				var previous []Pair
				if body.Put.Previous != nil {
					previous = []Pair{*body.Put.Previous}
				}
				if !found(previous) {
					return nil
				}
			}
			state = &request.Put.Value
		case request.Delete != nil:
			if body.Delete != nil {
				if (body.Delete.Deleted > 0) != (state != nil) {
					return nil
				}
				if request.Delete.Previous && !found(body.Delete.Previous) {
					return nil
				}
			}
			state = nil
		}
	}
	return []any{state}
}
