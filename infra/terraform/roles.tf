# A role per job, with the calls that its code makes; where they are made is said beside each group.

locals {
  lake      = module.lake.arn
  recovery  = module.recovery.arn
  deployed  = "deploy" # infra/emr/submit.py puts what jobs run under this prefix of the lake's bucket
  glue      = "arn:${local.partition}:glue:${var.region}:${local.account}"
  glue_arns = concat(["catalog"], [for name in module.catalog.databases : "database/${name}"], [for name in module.catalog.databases : "table/${name}/*"])

  may = {
    # python_ops/lake/state/dynamodb.py
    keep_state = [{
      actions   = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Scan"]
      resources = [module.state.arn]
    }]
    # python_ops/lake/secrets/providers.py
    read_secrets = [{ actions = ["secretsmanager:GetSecretValue"], resources = module.secrets.arns }]
    # python_ops/watch/alerts/targets.py, python_ops/watch/metrics/cloudwatch.py. The dashboard is this configuration's.
    tell = [
      { actions = ["sns:Publish", "sns:GetTopicAttributes"], resources = [module.alerts.arn] },
      {
        actions   = ["cloudwatch:PutMetricData"]
        resources = ["*"]
        only      = { "cloudwatch:namespace" = local.settings.metrics_namespace }
      },
    ]
    # python_ops/lake/storage.py, and Spark's S3A, which writes in parts
    read_lake  = [{ actions = ["s3:ListBucket", "s3:GetBucketVersioning"], resources = [local.lake] }, { actions = ["s3:GetObject"], resources = ["${local.lake}/${local.home}/*"] }]
    write_lake = [{ actions = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], resources = ["${local.lake}/${local.home}/*"] }]
    note       = [{ actions = ["s3:PutObject", "s3:DeleteObject"], resources = ["${local.lake}/${local.home}/state/*"] }]
    snapshots = [
      { actions = ["s3:ListBucket", "s3:GetBucketVersioning"], resources = [local.recovery] },
      { actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], resources = ["${local.recovery}/${local.snapshots}/*"] },
      { actions = ["kms:Decrypt", "kms:GenerateDataKey"], resources = [module.recovery_key.arn] },
    ]
    # Spark's client of the Glue catalog
    catalog = [{
      actions = [
        "glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetTables", "glue:GetPartitions",
        "glue:CreateTable", "glue:UpdateTable", "glue:DeleteTable", "glue:GetUserDefinedFunctions",
      ]
      resources = [for name in local.glue_arns : "${local.glue}:${name}"]
      }, {
      # Spark asks for these two whatever it does.
      actions   = ["glue:GetDatabase"]
      resources = ["${local.glue}:database/default", "${local.glue}:database/global_temp"]
    }]
    # python_ops/jobs/publish/redshift_target.py: a file for COPY, as long as the statement runs
    stage = [{ actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], resources = ["${local.lake}/${local.staging}/*"] }]
    # EMR Serverless, in the name of the job
    be_a_job = [
      { actions = ["s3:GetObject"], resources = ["${local.lake}/${local.deployed}/*"] },
      { actions = ["s3:PutObject"], resources = ["${module.logs.arn}/emr/*"] },
      { actions = ["kms:Decrypt", "kms:GenerateDataKey"], resources = [module.key.arn] },
      { actions = ["logs:DescribeLogGroups"], resources = ["*"] },
      { actions = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"], resources = ["${module.emr.log_group_arn}:*"] },
    ]
  }

  jobs = {
    run      = ["be_a_job", "keep_state", "read_secrets", "tell", "read_lake", "write_lake", "catalog", "stage"]
    check    = ["be_a_job", "keep_state", "read_secrets", "tell", "read_lake", "note"]
    maintain = ["be_a_job", "keep_state", "read_lake", "write_lake", "catalog"]
    snapshot = ["be_a_job", "keep_state", "read_lake", "note", "snapshots"]
  }
}

module "role" {
  source     = "./modules/role"
  for_each   = local.jobs
  name       = "${local.prefix}-${each.key}"
  account    = local.account
  statements = flatten([for right in each.value : local.may[right]])
}

# What Redshift reads for COPY. Attach the role to the cluster or namespace; the secret `redshift` names it.
data "aws_iam_policy_document" "redshift_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["redshift.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "redshift" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["${local.lake}/${local.staging}/*"]
  }
  statement {
    actions   = ["s3:ListBucket"]
    resources = [local.lake]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.staging}/*"]
    }
  }
  statement {
    actions   = ["kms:Decrypt"]
    resources = [module.key.arn]
  }
}

resource "aws_iam_role" "redshift" {
  count              = contains(local.settings.publish, "redshift") ? 1 : 0
  name               = "${local.prefix}-redshift-copy"
  assume_role_policy = data.aws_iam_policy_document.redshift_trust.json
}

resource "aws_iam_role_policy" "redshift" {
  count  = length(aws_iam_role.redshift)
  name   = "copy"
  role   = aws_iam_role.redshift[0].id
  policy = data.aws_iam_policy_document.redshift.json
}

# What Airflow's own role needs to start them.
data "aws_iam_policy_document" "scheduler" {
  statement {
    actions   = ["emr-serverless:StartJobRun"]
    resources = [module.emr.arn]
  }
  statement {
    actions   = ["emr-serverless:GetJobRun", "emr-serverless:CancelJobRun"]
    resources = ["${module.emr.arn}/jobruns/*"]
  }
  statement {
    actions   = ["iam:PassRole"]
    resources = [for role in module.role : role.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["emr-serverless.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "scheduler" {
  name        = "${local.prefix}-scheduler"
  description = "Start, watch and cancel the lakehouse's jobs"
  policy      = data.aws_iam_policy_document.scheduler.json
}
