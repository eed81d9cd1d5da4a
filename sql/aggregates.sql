-- Aggregates that combine what the shards computed. The planner puts them above its leaves; their arguments are states
-- as PostgreSQL's own transition functions have them: float8[] of count, sum and sum of squared deviations.

CREATE AGGREGATE shard_ext.combine_var_pop(float8[])
    (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_var_pop, PARALLEL = SAFE);
CREATE AGGREGATE shard_ext.combine_var_samp(float8[])
    (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_var_samp, PARALLEL = SAFE);
CREATE AGGREGATE shard_ext.combine_stddev_pop(float8[])
    (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_stddev_pop, PARALLEL = SAFE);
CREATE AGGREGATE shard_ext.combine_stddev_samp(float8[])
    (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_stddev_samp, PARALLEL = SAFE);
COMMENT ON AGGREGATE shard_ext.combine_var_pop(float8[]) IS 'var_pop of all shards, from each shard''s count, sum and sum of squared deviations';
COMMENT ON AGGREGATE shard_ext.combine_var_samp(float8[]) IS 'var_samp of all shards, from each shard''s count, sum and sum of squared deviations';
COMMENT ON AGGREGATE shard_ext.combine_stddev_pop(float8[]) IS 'stddev_pop of all shards, from each shard''s count, sum and sum of squared deviations';
COMMENT ON AGGREGATE shard_ext.combine_stddev_samp(float8[]) IS 'stddev_samp of all shards, from each shard''s count, sum and sum of squared deviations';

-- of two variables: count, sum and squared deviations of x, the same of y, and the product of deviations
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['regr_sxx', 'regr_syy', 'regr_sxy', 'regr_avgx', 'regr_avgy', 'regr_r2', 'regr_slope',
                                'regr_intercept', 'covar_pop', 'covar_samp', 'corr']
    LOOP
        EXECUTE format(
            'CREATE AGGREGATE shard_ext.combine_%1$s(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[],
                INITCOND = ''{0,0,0,0,0,0}'', FINALFUNC = float8_%1$s, PARALLEL = SAFE)', name);
        EXECUTE format(
            'COMMENT ON AGGREGATE shard_ext.combine_%1$s(float8[]) IS ''%1$s of all shards, from each shard''''s transition state''', name);
    END LOOP;
END
$$;

CREATE AGGREGATE shard_ext.combine_array_agg(anycompatiblearray) (SFUNC = array_cat, STYPE = anycompatiblearray);
COMMENT ON AGGREGATE shard_ext.combine_array_agg(anycompatiblearray) IS 'the arrays of all shards as one';
CREATE AGGREGATE shard_ext.combine_jsonb(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
COMMENT ON AGGREGATE shard_ext.combine_jsonb(jsonb) IS 'the arrays or objects of all shards as one';

-- sum(bigint) is numeric; these stay what they are
CREATE AGGREGATE shard_ext.combine_count(bigint) (SFUNC = int8pl, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE);
COMMENT ON AGGREGATE shard_ext.combine_count(bigint) IS 'the sum of counts, 0 over nothing';
CREATE AGGREGATE shard_ext.combine_sum(bigint) (SFUNC = int8pl, STYPE = bigint, COMBINEFUNC = int8pl, PARALLEL = SAFE);
COMMENT ON AGGREGATE shard_ext.combine_sum(bigint) IS 'the sum of sums of integers, as bigint';
